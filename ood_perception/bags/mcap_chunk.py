# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk of an .mcap file: unpacked and checked by its size and checksum."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from typing import Any, BinaryIO
from zlib import crc32

from ood_perception.errors import DataError, DependencyError

from .compression import MAX_MESSAGE_BYTES, MIB, zstd_library
from .mcap_index import HEADER_BYTES

_HEAD = struct.Struct('<QQQII')  # first and last log time, size, checksum, length of a name
# Room for the largest message and its record: more is a damaged number or a bomb.
MOST_BYTES = MAX_MESSAGE_BYTES + MIB
_MOST_FRAMES = 1000


def read_chunk(file: BinaryIO, place: int) -> bytes:
    """Return the records of the chunk at a byte of the file; DataError where it is damaged."""
    file.seek(place)
    (length,) = struct.unpack('<Q', file.read(HEADER_BYTES)[1:])
    body = file.read(length)
    try:
        _, _, size, checksum, letters = _HEAD.unpack_from(body)
        start = _HEAD.size + letters
        compression = body[_HEAD.size : start].decode()
        (packed,) = struct.unpack_from('<Q', body, start)
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(f'its head cannot be read: {error}') from error
    data = body[start + 8 : start + 8 + packed]
    if len(data) < packed or size > MOST_BYTES:
        raise DataError(f'{packed} packed bytes, {size} unpacked, in a record of {length}')
    plain = _unpacked(data, compression, size)
    if len(plain) != size:
        raise DataError(f'{len(plain)} bytes where it promises {size}')
    if checksum and crc32(plain) != checksum:
        raise DataError('its checksum does not match')
    return plain


def _unpacked(data: bytes, compression: str, size: int) -> bytes:
    if not compression:
        return data
    makers: dict[str, Callable[[], Any]] = {
        'zstd': lambda: zstd_library().ZstdDecompressor(),
        'lz4': lambda: _lz4().LZ4FrameDecompressor(),
    }
    if compression not in makers:
        raise DataError(f'compression {compression!r} is not known, only zstd and lz4 are')
    make, plain, frames = makers[compression], bytearray(), 0
    while data:  # a chunk may hold several frames
        unpacker, frames = make(), frames + 1
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


def _lz4() -> Any:
    try:
        return importlib.import_module('lz4.frame')
    except ImportError as error:
        raise DependencyError(
            "this bag is lz4-compressed: pip install 'ood_perception[bags]'"
        ) from error
