# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Where an .mcap file keeps its messages, told by the records themselves.

The file's own index may lack chunks (writers leave out those without a MessageIndex), so every
record's header is visited. The index serves where a damaged header hides what follows it.
"""

from __future__ import annotations

import importlib
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO
from zlib import crc32

from ood_perception.errors import DataError, DependencyError

from .compression import MAX_MESSAGE_BYTES, MIB, zstd_library

MAGIC = b'\x89MCAP0\r\n'

HEADER_BYTES = 9  # opcode and length of a record

FOOTER_BYTES = HEADER_BYTES + 20 + len(MAGIC)

FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 2, 3, 4, 5, 6, 7

CHUNK_INDEX, STATISTICS, DATA_END = 8, 11, 15

# Opcodes of the format, and those that it leaves to applications.
_KNOWN = frozenset(range(1, 16)) | frozenset(range(0x80, 0x100))

MESSAGE_HEAD = struct.Struct('<HIQQ')  # channel, sequence, log time, publish time


@dataclass(frozen=True)
class Chunk:
    """
    place: byte of its record in the file. start_ns: its first log time, as it says itself.
    counts: messages by channel as the MessageIndex records after it say, empty without any.
    """

    place: int
    start_ns: int
    counts: Counter[int] = field(default_factory=Counter)


@dataclass
class McapIndex:
    """
    What the records of a file say.

    loose: (log time, byte of the record, channel) of each message outside chunks. promised:
    messages by channel as the file's statistics say, None without. damage: '' or what is wrong.
    """

    profile: str = ''
    schemas: dict[int, str] = field(default_factory=dict)
    channels: dict[int, Any] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    loose: list[tuple[int, int, int]] = field(default_factory=list)
    promised: Counter[int] | None = None
    damages: list[str] = field(default_factory=list)

    def define(self, opcode: int, body: bytes) -> None:
        """Keep a Schema or Channel record; others are ignored."""
        records = _records()
        if opcode == SCHEMA:
            schema = records.Schema.read(_stream(body))
            self.schemas[schema.id] = schema.name
        elif opcode == CHANNEL:
            channel = records.Channel.read(_stream(body))
            self.channels[channel.id] = channel

    def counts(self) -> Counter[int]:
        """Return the number of messages by channel, as far as index records tell them."""
        return sum(
            (chunk.counts for chunk in self.chunks),
            Counter(channel for _, _, channel in self.loose),
        )


def read_index(file: BinaryIO) -> McapIndex:
    """Return what a file's records say; DataError for what is no .mcap file."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise DataError('it does not begin as an mcap' if size else 'it is empty')
    index, known = McapIndex(), [size]
    _read_summary(file, size, index, known)
    for place, opcode, length in _walk(file, size, sorted(known), index.damages):
        _visit(file, place, opcode, length, index)
    return index


def _read_summary(file: BinaryIO, size: int, index: McapIndex, known: list[int]) -> None:
    """Keep what the summary says, and add the places of chunks that it knows to `known`."""
    file.seek(max(0, size - FOOTER_BYTES))
    tail = file.read()
    if len(tail) < FOOTER_BYTES or tail[-len(MAGIC) :] != MAGIC or tail[0] != FOOTER:
        return  # the walk finds out where the file ends
    start, _, checksum = struct.unpack_from('<QQI', tail, HEADER_BYTES)
    end = size - FOOTER_BYTES
    if not start:
        return
    file.seek(start)
    summary = file.read(max(0, end - start))
    signed = summary + tail[: HEADER_BYTES + 16]
    if start > end or (checksum and crc32(signed) != checksum):
        index.damages.append('its summary does not match its checksum or place')
        return
    try:
        for opcode, body in split_records(summary):
            _keep_summary(file, opcode, body, index, known)
    except unreadable() as error:
        index.damages.append(f'its summary cannot be read ({error})')


def _keep_summary(
    file: BinaryIO, opcode: int, body: bytes, index: McapIndex, known: list[int]
) -> None:
    index.define(opcode, body)
    if opcode == CHUNK_INDEX:
        chunk = _records().ChunkIndex.read(_stream(body))
        file.seek(chunk.chunk_start_offset)
        # A place that is no chunk of this length would break up the record that lies there.
        if file.read(HEADER_BYTES) == struct.pack('<BQ', CHUNK, chunk.chunk_length - HEADER_BYTES):
            known.append(chunk.chunk_start_offset)
    elif opcode == STATISTICS:
        statistics = _records().Statistics.read(_stream(body))
        counts = Counter(statistics.channel_message_counts)
        # Some writers count all messages and none by channel: that promise cannot be checked by
        # channel, but the file is then read whole.
        index.promised = counts if sum(counts.values()) == statistics.message_count else None


def _walk(
    file: BinaryIO, size: int, known: list[int], damages: list[str]
) -> Iterator[tuple[int, int, int]]:
    """Yield (place, opcode, length of the body) of each record of the data section."""
    place = len(MAGIC)
    while True:
        file.seek(place)
        head = file.read(HEADER_BYTES)
        following = known[min(bisect_right(known, place), len(known) - 1)]
        if len(head) < HEADER_BYTES:
            damages.append(f'it ends at byte {size} without its end mark')
            return
        opcode, length = struct.unpack('<BQ', head)
        end = place + HEADER_BYTES + length
        if opcode in (DATA_END, FOOTER) and following == size:
            return
        if opcode not in _KNOWN or opcode in (DATA_END, FOOTER) or end > following:
            damages.append(f'its record at byte {place} is damaged or cut off')
            if following == size:
                return
            end = following
        else:
            yield place, opcode, length
        place = end


def _visit(file: BinaryIO, place: int, opcode: int, length: int, index: McapIndex) -> None:
    """Keep what one record says; the file stands behind the record's head."""
    try:
        if opcode in (SCHEMA, CHANNEL):
            index.define(opcode, file.read(length))
        elif opcode == CHUNK:
            index.chunks.append(Chunk(place, *struct.unpack('<Q', file.read(8))))
        elif opcode == MESSAGE_INDEX and index.chunks:
            channel, size = struct.unpack('<HI', file.read(6))
            index.chunks[-1].counts[channel] += size // 16
        elif opcode == MESSAGE:
            channel, _, time, _ = MESSAGE_HEAD.unpack(file.read(MESSAGE_HEAD.size))
            index.loose.append((time, place, channel))
        elif opcode == 1:
            index.profile = _records().Header.read(_stream(file.read(length))).profile
    except unreadable() as error:
        index.damages.append(f'its record at byte {place} is damaged ({error})')


def split_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (opcode, body) of the records in a block; DataError where one runs past its end."""
    place = 0
    while place < len(data):
        if len(data) - place < HEADER_BYTES:
            raise DataError(f'a record at byte {place} of {len(data)} has no head')
        opcode, length = struct.unpack_from('<BQ', data, place)
        place += HEADER_BYTES
        if length > len(data) - place:
            raise DataError(f'a record of {length} bytes at byte {place} of {len(data)}')
        yield opcode, data[place : place + length]
        place += length


def unreadable() -> tuple[type[Exception], ...]:
    """Return what damaged records make this module and the mcap library raise."""
    from mcap.exceptions import McapError

    return (DataError, struct.error, UnicodeDecodeError, McapError)


def _stream(body: bytes) -> Any:
    from mcap.data_stream import ReadDataStream

    return ReadDataStream(BytesIO(body))


def _records() -> Any:
    try:
        from mcap import records
    except ImportError as error:
        raise DependencyError(
            "reading an .mcap needs mcap: pip install 'ood_perception[bags]'"
        ) from error
    return records


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
