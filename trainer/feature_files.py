# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Arrays with a row an image, in files of a block of images each, made by as many as like to help.

A file that is there is whole: which ones are there is the index of what is joined. An object store
holds the same files. One that is being made has another name and grows batch by batch: a process
that is killed has lost the batch in its hands, and whoever comes next goes on from there.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ood_perception.files import locked, make_file

from .distributed import barrier, share
from .progress import progress_bar

# Images of a file, at least; of long lists more, so that the files can all be open at once.
BLOCK = 16
_MOST_BLOCKS = 64
_PIECE = 1 << 22

Batches = Iterator[Mapping[str, npt.NDArray[Any]]]
Compute = Callable[[range, Sequence[str]], Batches]
"""Yields the rows of some images in the arrays that are named, a batch at a time, in order."""


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

    count: images. kinds: name -> shape of a row and dtype. compute: see Compute. batch: images of
    a batch. remote: a folder of an object store; what is there is not computed, and what is
    computed is put there.
    """

    folder: Path
    count: int
    kinds: Mapping[str, tuple[tuple[int, ...], Any]]
    compute: Compute
    batch: int = 1
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
        """Compute arrays of a block under other names, from where one was killed; rename them."""
        images = self.blocks[block]
        parts = {name: self.file(name, block).with_suffix('.rows') for name in names}
        heads = {name: self._head(name, len(images)) for name in names}
        with ExitStack() as stack:
            files = {name: stack.enter_context(path.open('ab+')) for name, path in parts.items()}
            there = min(_rows_in(file, *heads[name]) for name, file in files.items())
            done = there // self.batch * self.batch  # batches of other images round otherwise
            for name, file in files.items():
                _cut(file, *heads[name], done)
            for rows in self.compute(images[done:], names):
                for name, file in files.items():
                    file.write(np.ascontiguousarray(rows[name], self.kinds[name][1]).data)
                    file.flush()
            for file in files.values():
                os.fsync(file.fileno())
        for name, path in parts.items():
            os.replace(path, self.file(name, block))

    def _head(self, name: str, rows: int) -> tuple[bytes, int]:
        """Return how the file of an array of so many rows begins, and the bytes of a row."""
        shape, kind = self.kinds[name]
        text = io.BytesIO()
        facts = {'descr': np.dtype(kind).str, 'fortran_order': False, 'shape': (rows, *shape)}
        np.lib.format.write_array_header_1_0(text, facts)
        return text.getvalue(), math.prod(shape) * np.dtype(kind).itemsize

    def _fetch(self, file: Path) -> None:
        """Bring a file from the object store, whole or not at all, where it is there."""
        if self.remote is None or not (self.remote / file.name).exists():
            return
        with (self.remote / file.name).open('rb') as source:

            def copy(path: Path) -> None:
                with path.open('wb') as target:
                    shutil.copyfileobj(source, target, _PIECE)

            make_file(file, copy)
        file.with_suffix('.rows').unlink(missing_ok=True)  # of a process that was killed here

    def _put(self, file: Path) -> None:
        """Bring a file to the object store, where it is whole or not there."""
        if self.remote is not None:
            with file.open('rb') as source, (self.remote / file.name).open('wb') as target:
                shutil.copyfileobj(source, target, _PIECE)


def _rows_in(file: IO[bytes], head: bytes, row: int) -> int:
    """Return how many whole rows of so many bytes stand behind a file's head; 0 without it."""
    file.seek(0)
    return (file.seek(0, os.SEEK_END) - len(head)) // row if file.read(len(head)) == head else 0


def _cut(file: IO[bytes], head: bytes, row: int, rows: int) -> None:
    """Leave the head of a file and so many rows; what is written comes behind them."""
    file.truncate(len(head) + rows * row if rows else 0)
    if not rows:
        file.write(head)
