# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Arrays with a row an image, in files of a block of images each, made by as many as like to help.

A file that is there is whole: which ones are there is all that is known of the progress, and the
index of what is joined. An object store holds the same files.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.files import locked, make_file

from .distributed import barrier, share
from .progress import progress_bar

# Images of a file, at least; of long lists more, so that the files can all be open at once.
BLOCK = 16
_MOST_BLOCKS = 64
_PIECE = 1 << 22

Compute = Callable[[range, Mapping[str, npt.NDArray[Any]]], None]
"""Fills arrays, by name, with the rows of some images."""


def release(array: Any) -> None:
    """
    Give back the memory that a mapped file takes; what is read again comes from the file again.

    array: mapped, or Rows of mapped ones; of others nothing is given back.
    """
    for part in getattr(array, 'sources', ()):
        release(part)
    mapped = getattr(array, '_mmap', None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class FeatureFiles:
    """
    The files of one list.

    count: images. kinds: name -> shape of a row and dtype. compute: see Compute. remote: a folder
    of an object store; what is there is not computed, and what is computed is put there.
    """

    folder: Path
    count: int
    kinds: Mapping[str, tuple[tuple[int, ...], Any]]
    compute: Compute
    remote: Path | None = None

    @property
    def blocks(self) -> list[range]:
        """The images of every block."""
        size = max(BLOCK, math.ceil(self.count / _MOST_BLOCKS))
        starts = range(0, self.count, size)
        return [range(first, min(first + size, self.count)) for first in starts]

    def file(self, name: str, block: int) -> Path:
        """Return the file of an array for a block."""
        return self.folder / f'{name}.{block:05d}.npy'

    def parts(self, name: str) -> list[npt.NDArray[Any]]:
        """Return an array's blocks, memory-mapped; they must have been filled."""
        return [np.load(self.file(name, n), mmap_mode='r') for n in range(len(self.blocks))]

    def fill(self) -> None:
        """Make what is missing: this process's share of the blocks first, then all others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        blocks = self.blocks
        numbers = range(len(blocks))
        with progress_bar(None, 'features', total=self.count) as bar:
            for number in share(numbers):
                self._make(number)
                bar.update(len(blocks[number]))
            barrier()  # where nothing else tells that another one is at it
            for number in numbers:
                self._make(number)

    def _missing(self, block: int) -> list[str]:
        return [name for name in self.kinds if not self.file(name, block).is_file()]

    def _make(self, block: int) -> None:
        if not self._missing(block):
            return
        with locked(self.folder / f'block_{block:05d}'):
            for name in self._missing(block):
                self._fetch(self.file(name, block))
            if missing := self._missing(block):
                self._fill(block, missing)
                for name in missing:
                    self._put(self.file(name, block))

    def _fill(self, block: int, names: Sequence[str]) -> None:
        """Compute arrays of a block under other names, then rename them."""
        images = self.blocks[block]
        partial = {name: self.file(name, block).with_suffix('.part') for name in names}
        arrays = {}
        for name, path in partial.items():
            shape, kind = self.kinds[name]
            whole = (len(images), *shape)
            arrays[name] = np.lib.format.open_memmap(path, mode='w+', dtype=kind, shape=whole)
        self.compute(images, arrays)
        for name, path in partial.items():
            arrays[name].flush()
            os.replace(path, self.file(name, block))

    def _fetch(self, file: Path) -> None:
        """Bring a file from the object store, whole or not at all, where it is there."""
        if self.remote is None or not (self.remote / file.name).exists():
            return
        with (self.remote / file.name).open('rb') as source:

            def copy(path: Path) -> None:
                with path.open('wb') as target:
                    shutil.copyfileobj(source, target, _PIECE)

            make_file(file, copy)

    def _put(self, file: Path) -> None:
        """Bring a file to the object store, where it is whole or not there."""
        if self.remote is not None:
            with file.open('rb') as source, (self.remote / file.name).open('wb') as target:
                shutil.copyfileobj(source, target, _PIECE)
