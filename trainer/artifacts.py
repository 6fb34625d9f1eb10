# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer keeps: folders that are made once, state to go on from, files by content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ood_perception.errors import DataError
from ood_perception.files import locked, make_folder
from ood_perception.json_files import write_json

from .distributed import barrier, of_first, rank

LOG = logging.getLogger(__name__)
KEY_FILE = 'key.json'
REPORT_FILE = 'report.json'
Network = TypeVar('Network', bound=nn.Module)
Values = TypeVar('Values')
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip files know no earlier time: the same inputs, the same bytes


@dataclass(frozen=True)
class Artifact:
    """
    A folder whose name says what it came from: <store>/<kind>-<first 16 digits of the key>.

    The key is the address: runs that agree on all that an artifact depends on, and share a store,
    find each other's. kind: such as 'classifier'. key: sha256 of what it depends on, see digest.
    """

    store: Path
    kind: str
    key: str

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return self.store / f'{self.kind}-{self.key[:16]}'

    @property
    def checkpoint(self) -> Path:
        """Where what makes it may keep the state that it goes on from after a kill."""
        return self.folder.with_name(f'{self.folder.name}.ckpt')

    def make(self, fill: Callable[[Path], None]) -> Artifact:
        """Fill the folder, whole or not at all, unless it is there; return the artifact."""
        with locked(self.folder):
            if not self._is_made():
                self._make(fill)
        return self

    def make_together(self, fill: Callable[[Path], None]) -> Artifact:
        """
        Let the processes of torchrun fill the folder together, see distributed.

        All call `fill`, which shares its work by collective calls; what the first one writes is
        kept.
        """
        if rank():
            if not of_first(False):
                with tempfile.TemporaryDirectory() as unused:
                    fill(Path(unused))
        else:
            with locked(self.folder):
                if not of_first(self._is_made()):
                    self._make(fill)
        barrier()
        return self

    def _is_made(self) -> bool:
        path = self.folder / KEY_FILE
        # this very key, not only its first digits
        if not path.is_file() or json.loads(path.read_text())['key'] != self.key:
            return False
        LOG.info('%s is up to date', self.folder)
        return True

    def _make(self, fill: Callable[[Path], None]) -> None:
        def whole(target: Path) -> None:
            fill(target)
            write_json(target / KEY_FILE, {'key': self.key})

        make_folder(self.folder, whole)
        self.checkpoint.unlink(missing_ok=True)

    def save_state(self, state: dict[str, torch.Tensor]) -> None:
        """
        Write a checkpoint; a kill at any moment leaves the old file or the new one, whole.

        Of several processes the first alone writes.
        """
        if rank():
            return
        self.store.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_name(self.checkpoint.name + '.partial')
        tensors = {name: value.detach().contiguous() for name, value in state.items()}
        save_file(tensors, partial, metadata={'key': _sha256(self.key)})
        os.replace(partial, self.checkpoint)

    def load_state(self) -> dict[str, torch.Tensor] | None:
        """Return the tensors of the checkpoint; None without one of this very key."""
        path = self.checkpoint
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework='pt') as file:
                if (file.metadata() or {}).get('key') != _sha256(self.key):
                    LOG.warning('%s belongs to other settings or data: started anew', path)
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            LOG.warning('%s cannot be read (%s): started anew', path, error)
            return None

    def report(self) -> dict[str, Any]:
        """Return what was recorded of it, JSON values."""
        return json.loads((self.folder / REPORT_FILE).read_text())


def digest(values: Any) -> str:
    """Return the sha256 of JSON values."""
    return _sha256(json.dumps(values, sort_keys=True))


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a compressed .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, 'w') as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def save_values(path: Path, values: Any) -> None:
    """Write a dataclass of arrays and numbers; the same values give the same bytes."""
    fields = dataclasses.fields(values)
    write_npz(path, {one.name: np.asarray(getattr(values, one.name)) for one in fields})


def load_values(path: Path, kind: type[Values]) -> Values:
    """Read what save_values wrote of a kind of dataclass."""
    with np.load(path, allow_pickle=False) as arrays:
        read = {name: arrays[name] for name in arrays.files}
    numbers = [name for name, hint in get_type_hints(kind).items() if hint is float]
    return kind(**{**read, **{name: read[name].item() for name in numbers}})


def save_network(path: Path, network: nn.Module, kind: str, values: Any) -> None:
    """Write a network as safetensors; kind: what it is; values: JSON to build it again from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, metadata={kind: json.dumps(values)})


def load_network(path: Path, kind: str, build: Callable[[Any], Network]) -> Network:
    """
    Read what save_network wrote, frozen and in evaluation mode.

    build: the values to a network. Raises DataError where the file holds something else.
    """
    try:
        with safe_open(path, framework='pt') as file:
            network = build(json.loads((file.metadata() or {})[kind]))
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f'{path} is no {kind} of this trainer: {error}') from error
    return network.requires_grad_(False).eval()


def part_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
