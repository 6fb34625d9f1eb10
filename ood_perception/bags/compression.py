# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Compressed messages, chunks and files of bags, unpacked with a cap on the size."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError, DependencyError
from ood_perception.requirements import install_command

# RFC 8878, section 3.1.1: the magic number 0xFD2FB528, little endian. No CDR message begins so:
# its second byte is the encapsulation kind, at most 0x0b.
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
MIB = 1 << 20
# 200 megapixels of four bytes, the largest image that the decoder takes, and its header.
MAX_MESSAGE_BYTES = 801 * MIB
MAX_FILE_BYTES = 256 << 30
_MOST_FRAMES = 1000  # of one chunk


class SizeCapError(DataError):
    """Something unpacks to more than the cap."""


def is_zstd(data: bytes) -> bool:
    """Return whether bytes begin a Zstandard frame."""
    return bytes(data[:4]) == ZSTD_MAGIC


def unpack_message(data: bytes, limit: int = MAX_MESSAGE_BYTES) -> bytes:
    """
    Return the bytes of one Zstandard frame.

    Raises SizeCapError when they are more than `limit` (they are not unpacked further then),
    DataError when the frame is damaged or cut off, DependencyError without a Zstandard library.
    """
    zstd = zstd_library()
    unpacker = zstd.ZstdDecompressor()
    try:
        plain = bytes(unpacker.decompress(data, max_length=limit + 1))
    except zstd.ZstdError as error:
        raise DataError(f'zstd-compressed message of {len(data)} bytes is damaged: {error}') from (
            error
        )
    if len(plain) > limit:
        raise SizeCapError(
            f'zstd-compressed message of {len(data)} bytes unpacks to more than '
            f'{limit / MIB:g} MiB; --max-message-mib raises the cap'
        )
    if not unpacker.eof:
        raise DataError(f'zstd-compressed message of {len(data)} bytes is cut off')
    return plain


def unpack_chunk(data: bytes, compression: str, size: int) -> bytes:
    """
    Return the bytes of an .mcap chunk, whose frames ('zstd', 'lz4'; '' is none) follow each other.

    Raises DataError where they are damaged, cut off, or more than `size` bytes: no further ones
    are unpacked then; DependencyError without the library.
    """
    if not compression:
        return data
    makers: dict[str, Callable[[], Any]] = {
        'zstd': lambda: zstd_library().ZstdDecompressor(),
        'lz4': lambda: _library('lz4', 'lz4.frame').LZ4FrameDecompressor(),
    }
    if compression not in makers:
        raise DataError(f'compression {compression!r} is not known, only zstd and lz4 are')
    plain, frames = bytearray(), 0
    while data:
        unpacker, frames = makers[compression](), frames + 1
        if frames > _MOST_FRAMES:  # each costs a copy of the rest
            raise DataError(f'more than {_MOST_FRAMES} frames of {compression}')
        try:
            plain += unpacker.decompress(data, max_length=size + 1 - len(plain))
        except Exception as error:  # the libraries' own classes; lz4 raises RuntimeError
            raise DataError(f'{compression}: {error}') from error
        if not unpacker.eof or len(plain) > size:
            raise DataError(
                f'{compression}: it is cut off or larger than the {size} bytes it says'
            )
        data = unpacker.unused_data or b''
    return bytes(plain)


def unpack_file(source: Path, target: Path, limit: int = MAX_FILE_BYTES) -> str:
    """
    Unpack a .zstd file; return '' or, for a cut off or damaged file, what is wrong with it.

    What came before the damage is in `target` then. Raises SizeCapError above `limit` bytes.
    """
    zstd, written = zstd_library(), 0
    with source.open('rb') as packed, target.open('wb') as plain:
        reader = zstd.open(packed, 'rb')
        while True:
            try:
                block = reader.read1(MIB)  # read() would lose what came before the damage
            except (EOFError, zstd.ZstdError) as error:
                return f'{source} is damaged or cut off ({error}): copy it again'
            if not block:
                return ''
            written += len(block)
            if written > limit:
                raise SizeCapError(
                    f'{source} unpacks to more than {limit / (1 << 30):g} GiB; --max-file-gib '
                    'raises the cap'
                )
            plain.write(block)


def zstd_library() -> Any:
    """Return Python 3.14's own module, or its backport."""
    return _library('zstd', 'compression.zstd', 'backports.zstd')


def _library(compression: str, *names: str) -> Any:
    for name in names:
        with suppress(ImportError):
            return importlib.import_module(name)
    raise DependencyError(f'this bag is {compression}-compressed: {install_command("bags")}')
