# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What the trainer keeps: folders that are made once, state to go on from, and files by content.

Every artefact holds the key of what it came from, every checkpoint that of its inputs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ood_perception.bundle.cache import locked, make_file, make_folder

LOG = logging.getLogger(__name__)
KEY_FILE = 'key.json'
REPORT_FILE = 'report.json'
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip files know no earlier time: the same inputs, the same bytes


def artefact(folder: Path, key: str, make: Callable[[Path], None]) -> None:
    """Make a folder with its key, or keep it where it has that key already."""
    with locked(folder):
        if key_of(folder) == key:
            LOG.info('%s is up to date', folder)
            return

        def fill(target: Path) -> None:
            make(target)
            write_json(target / KEY_FILE, {'key': key})

        make_folder(folder, fill)


def key_of(folder: Path) -> str:
    """Return an artefact's key, '' where there is none."""
    path = folder / KEY_FILE
    return str(json.loads(path.read_text())['key']) if path.is_file() else ''


def adopt(source: Path, target: Path) -> None:
    """
    Let `target` hold the same files as another artefact, unless it is an artefact already.

    A wrong guess costs time, never truth: the key comes along, and where it does not fit the
    folder is made again.
    """
    if not key_of(source) or key_of(target):
        return

    def fill(folder: Path) -> None:
        for file in source.iterdir():
            try:
                os.link(file, folder / file.name)
            except OSError:  # another file system
                shutil.copyfile(file, folder / file.name)

    with locked(target):
        make_folder(target, fill)


def digest(values: Any) -> str:
    """Return the sha256 of JSON values."""
    return _sha256(json.dumps(values, sort_keys=True))


def write_json(path: Path, values: object) -> None:
    """Write JSON values, whole or not at all."""
    text = json.dumps(values, indent=1, ensure_ascii=False) + '\n'
    make_file(path, lambda partial: partial.write_text(text, encoding='utf-8') and None)


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a compressed .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, 'w') as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def save_checkpoint(path: Path, state: dict[str, torch.Tensor], key: str) -> None:
    """Write the tensors; a kill at any moment leaves the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    save_file(tensors, partial, metadata={'key': _sha256(key)})
    os.replace(partial, path)


def load_checkpoint(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors that were saved under this key; None without such a file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:
            if (file.metadata() or {}).get('key') != _sha256(key):
                LOG.warning('%s belongs to other settings or data: started anew', path)
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        LOG.warning('%s cannot be read (%s): started anew', path, error)
        return None


def part_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
