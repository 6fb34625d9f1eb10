# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Zstandard in bags: told by its first bytes, unpacked with a cap on the size."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError, DependencyError

# RFC 8878, section 3.1.1: the magic number 0xFD2FB528, little endian. No CDR message begins so:
# its second byte is the encapsulation kind, at most 0x0b.
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
MIB = 1 << 20
# 200 megapixels of four bytes, the largest picture that the decoder takes, and its header.
MAX_MESSAGE_BYTES = 801 * MIB
MAX_FILE_BYTES = 256 << 30


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
    for name in ('compression.zstd', 'backports.zstd'):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise DependencyError("this bag is zstd-compressed: pip install 'ood_perception[bags]'")
