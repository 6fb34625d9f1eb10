# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Where an .mcap file keeps its messages, reported by the records themselves.

The file's own index may lack chunks (writers leave out those without a MessageIndex), so every
record's header is visited. The index serves where a damaged header hides what follows it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO
from zlib import crc32

from ood_perception.errors import DataError, required
from ood_perception.requirements import install_command

from .compression import MAX_MESSAGE_BYTES, MIB, unpack_chunk

MESSAGE = 5
MESSAGE_HEAD = struct.Struct('<HIQQ')  # channel, sequence, log time, publish time
# What damaged records make this module raise.
UNREADABLE = (DataError, struct.error, UnicodeDecodeError)
# Room for the largest message and its record: more is a damaged number or a bomb.
MOST_BYTES = MAX_MESSAGE_BYTES + MIB
_MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')  # opcode and length of a record
_FOOTER_BYTES = _HEAD.size + 20 + len(_MAGIC)
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _CHUNK, _MESSAGE_INDEX = 1, 2, 3, 4, 6, 7
_CHUNK_INDEX, _STATISTICS, _DATA_END = 8, 11, 15
# Opcodes of the format, and those that it leaves to applications.
_KNOWN = frozenset(range(1, 16)) | frozenset(range(0x80, 0x100))
_CHUNK_HEAD = struct.Struct('<QQQII')  # first and last log time, size, checksum, length of a name


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

    loose: (log time, byte of the record, channel) of each message outside chunks. declared:
    messages by channel as the file's statistics say, None without. damages: what is wrong.
    """

    profile: str = ''
    schemas: dict[int, str] = field(default_factory=dict)
    channels: dict[int, Any] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    loose: list[tuple[int, int, int]] = field(default_factory=list)
    declared: Counter[int] | None = None
    damages: list[str] = field(default_factory=list)

    def define(self, opcode: int, body: bytes) -> None:
        """Keep a Schema or Channel record; others are ignored."""
        if opcode == _SCHEMA:
            schema = _parsed('Schema', body)
            self.schemas[schema.id] = schema.name
        elif opcode == _CHANNEL:
            channel = _parsed('Channel', body)
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
    if file.read(len(_MAGIC)) != _MAGIC:
        raise DataError('it does not begin as an mcap' if size else 'it is empty')
    index = McapIndex()
    known = sorted([*_read_summary(file, size, index), size])
    for place, opcode, length in _walk(file, size, known, index.damages):
        _visit(file, place, opcode, length, index)
    return index


def read_body(file: BinaryIO, place: int) -> bytes:
    """Return the body of the record at a byte of the file, as far as the file holds it."""
    file.seek(place)
    _, length = _HEAD.unpack(file.read(_HEAD.size))
    return file.read(length)


def read_chunk(file: BinaryIO, place: int) -> bytes:
    """Return the records of the chunk at a byte of the file; DataError where it is damaged."""
    body = read_body(file, place)
    try:
        _, _, size, checksum, letters = _CHUNK_HEAD.unpack_from(body)
        start = _CHUNK_HEAD.size + letters
        compression = body[_CHUNK_HEAD.size : start].decode()
        (packed,) = struct.unpack_from('<Q', body, start)
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(f'its head cannot be read: {error}') from error
    data = body[start + 8 : start + 8 + packed]
    if len(data) < packed or size > MOST_BYTES:
        raise DataError(f'{packed} packed bytes, {size} unpacked, in a record of {len(body)}')
    plain = unpack_chunk(data, compression, size)
    if len(plain) != size:
        raise DataError(f'{len(plain)} bytes where it declares {size}')
    if checksum and crc32(plain) != checksum:
        raise DataError('its checksum does not match')
    return plain


def split_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (opcode, body) of the records in a block; DataError where one runs past its end."""
    place = 0
    while place < len(data):
        if len(data) - place < _HEAD.size:
            raise DataError(f'a record at byte {place} of {len(data)} has no head')
        opcode, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if length > len(data) - place:
            raise DataError(f'a record of {length} bytes at byte {place} of {len(data)}')
        yield opcode, data[place : place + length]
        place += length


def _read_summary(file: BinaryIO, size: int, index: McapIndex) -> list[int]:
    """Keep what the summary says; return the places of the chunks that it knows."""
    known: list[int] = []
    file.seek(max(0, size - _FOOTER_BYTES))
    tail = file.read()
    if len(tail) < _FOOTER_BYTES or tail[-len(_MAGIC) :] != _MAGIC or tail[0] != _FOOTER:
        return known  # the walk finds out where the file ends
    start, _, checksum = struct.unpack_from('<QQI', tail, _HEAD.size)
    if not start:
        return known
    end = size - _FOOTER_BYTES
    file.seek(min(start, end))
    summary = file.read(max(0, end - start))
    if start > end or (checksum and crc32(summary + tail[: _HEAD.size + 16]) != checksum):
        index.damages.append('its summary does not match its checksum or place')
        return known
    try:
        for opcode, body in split_records(summary):
            index.define(opcode, body)
            if opcode == _CHUNK_INDEX:
                known += _known_chunk(file, size, body)
            elif opcode == _STATISTICS:
                statistics = _parsed('Statistics', body)
                counts = Counter(statistics.channel_message_counts)
                # Some writers count all messages and none by channel: that statistic cannot be
                # checked by channel, but the file is then read whole.
                total = sum(counts.values())
                index.declared = counts if total == statistics.message_count else None
    except UNREADABLE as error:
        index.damages.append(f'its summary cannot be read ({error})')
    return known


def _known_chunk(file: BinaryIO, size: int, body: bytes) -> list[int]:
    """Return the place that a ChunkIndex names, none where no chunk of its length lies there."""
    chunk = _parsed('ChunkIndex', body)
    file.seek(min(chunk.chunk_start_offset, size))
    # Another place would break up the record that lies there.
    right = _HEAD.pack(_CHUNK, chunk.chunk_length - _HEAD.size)
    return [chunk.chunk_start_offset] if file.read(_HEAD.size) == right else []


def _walk(
    file: BinaryIO, size: int, known: list[int], damages: list[str]
) -> Iterator[tuple[int, int, int]]:
    """Yield (place, opcode, length of the body) of each record of the data section."""
    place = len(_MAGIC)
    while True:
        file.seek(place)
        head = file.read(_HEAD.size)
        following = known[min(bisect_right(known, place), len(known) - 1)]
        if len(head) < _HEAD.size:
            damages.append(f'it ends at byte {size} without its end mark')
            return
        opcode, length = _HEAD.unpack(head)
        end = place + _HEAD.size + length
        if opcode in (_DATA_END, _FOOTER) and following == size:
            return
        if opcode not in _KNOWN or opcode in (_DATA_END, _FOOTER) or end > following:
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
        if opcode in (_SCHEMA, _CHANNEL):
            index.define(opcode, file.read(length))
        elif opcode == _CHUNK:
            index.chunks.append(Chunk(place, *struct.unpack('<Q', file.read(8))))
        elif opcode == _MESSAGE_INDEX and index.chunks:
            channel, size = struct.unpack('<HI', file.read(6))
            index.chunks[-1].counts[channel] += size // 16
        elif opcode == MESSAGE:
            channel, _, time, _ = MESSAGE_HEAD.unpack(file.read(MESSAGE_HEAD.size))
            index.loose.append((time, place, channel))
        elif opcode == _HEADER:
            index.profile = _parsed('Header', file.read(length)).profile
    except UNREADABLE as error:
        index.damages.append(f'its record at byte {place} is damaged ({error})')


def _parsed(kind: str, body: bytes) -> Any:
    """Return a record of the mcap library; UNREADABLE errors for a damaged one."""
    records = required('mcap.records', f'reading an .mcap needs mcap: {install_command("bags")}')
    from mcap.data_stream import ReadDataStream
    from mcap.exceptions import McapError

    try:
        return getattr(records, kind).read(ReadDataStream(BytesIO(body)))
    except McapError as error:
        raise DataError(str(error)) from error
