# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Zip, .npy and .npz files of others: what they declare is held against bounds first."""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MOST_DIRECTORY_BYTES = 1 << 20
"""Room for 10 000 members of usual names; a bundle has about ten, a wheel some hundreds."""
MOST_BYTES = 256 << 20
"""Golden vectors and held-out samples take some MiB."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_AXES = 8
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted, or packed in a way that this Python does not know
    ValueError,  # names that are no UTF-8, places before the file's beginning
    OverflowError,
)
"""What zipfile and its decompressors raise for archives that are none, beside OSError."""


class _Bounded(io.FileIO):
    """A file that refuses to be read in large pieces: zipfile reads a directory in one."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; BadZipFile for more than MOST_DIRECTORY_BYTES."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(
                f'its directory takes more than {MOST_DIRECTORY_BYTES >> 20} MiB'
            )
        return super().read(size) or b''


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """
    Open a zip file for reading.

    Raises OSError where it cannot be read, and one of DAMAGED for what is no zip, has a directory
    of more than 1 MiB, or a member twice; members raise them, too. Whoever reads a member looks
    at its file_size before: zipfile gives no more bytes than that.
    """
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        names = [member.filename for member in archive.infolist()]
        if len(set(names)) < len(names):
            raise zipfile.BadZipFile('one of its members is there twice')
        yield archive


def read_arrays(path: Path, most: int = MOST_BYTES) -> dict[str, npt.NDArray[Any]]:
    """
    Return the arrays of an .npz file by name; no pickled objects.

    most: bytes of all arrays together. Raises OSError where the file cannot be read, ValueError,
    before anything of the size is allocated, where an array has not the bytes that its header
    declares, or they are too many, and for a damaged file.
    """
    try:
        with open_archive(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > most:
                raise ValueError(f'{total >> 20} MiB of arrays, at most {most >> 20} are accepted')
            return {member.filename.removesuffix('.npy'): _member(archive, member)
                    for member in members}  # fmt: skip
    except ValueError:
        raise
    except DAMAGED as error:
        raise ValueError(f'a damaged .npz: {error}') from error


def read_array(path: Path, most: int) -> npt.NDArray[Any]:
    """Return the array of an .npy file; errors as read_arrays, most: its bytes."""
    with path.open('rb') as file:
        return _checked(file, os.fstat(file.fileno()).st_size, most)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        return _checked(file, member.file_size, member.file_size)  # type: ignore[arg-type]


def _checked(file: BinaryIO, size: int, most: int) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f'an array of format {version}')
    try:
        shape, _, kind = _HEADERS[version](file)
    except OSError:
        raise
    except Exception as error:  # Python's own parser reads it: depth, tokens and memory, too
        raise ValueError(f'an array whose header cannot be read: {error}') from error
    count = math.prod(shape)
    plain = kind.kind in 'biufU' and kind.itemsize and kind.subdtype is None
    fits = len(shape) <= _MOST_AXES and all(0 <= axis <= most for axis in shape)
    if not (plain and fits):
        raise ValueError(f'an array of shape {shape} and type {kind}')
    if count * kind.itemsize != size - file.tell():
        raise ValueError(f'an array of shape {shape}, {kind}, in {size - file.tell()} bytes')
    if size > most:
        raise ValueError(f'an array of {size >> 20} MiB, at most {most >> 20} are accepted')
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
