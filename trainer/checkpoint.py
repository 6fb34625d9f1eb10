# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""State of an unfinished stage: one safetensors file, replaced whole, tied to its inputs."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

LOG = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict[str, torch.Tensor], key: str) -> None:
    """Write the tensors; a kill at any moment leaves the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    save_file(tensors, partial, metadata={'key': _digest(key)})
    os.replace(partial, path)


def load_checkpoint(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors that were saved under this key; None without such a file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:
            if (file.metadata() or {}).get('key') != _digest(key):
                LOG.warning('%s belongs to other settings or data: started anew', path)
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        LOG.warning('%s cannot be read (%s): started anew', path, error)
        return None


def part_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
