# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
An .mcap file, whole or not: every message that is there, sorted by log time.

Nothing is left out because an index lacks it: chunks are skipped only where the records after
each chunk and the file's statistics count the same messages. Otherwise opening reads the file.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from ood_perception.errors import DataError
from ood_perception.types import Tell

from .mcap_index import (
    MESSAGE,
    MESSAGE_HEAD,
    MOST_BYTES,
    UNREADABLE,
    Chunk,
    read_body,
    read_chunk,
    read_index,
    split_records,
)
from .metadata import Counts, Message, message_type, refuse_ros1
from .remote import open_by_range

# log time, byte of the chunk or record, number inside, channel, bytes
_Item = tuple[int, int, int, int, bytes]
# A chunk of a MB holds some ten thousand of the smallest messages.
_MOST_RECORDS = 1 << 20


class McapFile:
    """
    An .mcap file that is open. A damaged chunk is lost as a whole, later ones are read.

    topics: messages that are there. declared: those that the file's own statistics declare, {}
    without any. damage: what is wrong with the file as far as opening it showed, '' for nothing.

    Raises DataError for a file without any message that can be read but with damage, and for a
    ROS 1 recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lost: dict[int, int] = {}
        with open_by_range(path) as file:
            self._index = read_index(file)
            counts = self._index.counts()
            if not self._is_known(counts):
                counts = self._count(file)
        index = self._index
        undefined = sum(count for number, count in counts.items() if number not in index.channels)
        if undefined:
            index.damages.append(f'{undefined} messages belong to channels that nothing defines')
        self.damage = '; '.join(index.damages)
        if self.damage and not counts:
            raise DataError(self.damage)
        self._keys = {number: self._key(number) for number in index.channels}
        refuse_ros1(path, index.profile, [kind for _, kind in self._keys.values()])
        self.topics = {**dict.fromkeys(self._keys.values(), 0), **self._by_topic(counts)}
        self.declared = self._by_topic(index.declared or Counter())

    def _is_known(self, counts: Counter[int]) -> bool:
        """Return whether statistics, indexes and definitions agree: nothing is read then."""
        index = self._index
        return (
            not index.damages
            and index.declared is not None
            and +index.declared == +counts
            and all(
                number in index.channels
                and index.channels[number].schema_id in {0, *index.schemas}
                for number in counts
            )
        )

    @property
    def lost(self) -> int:
        """Return how many messages of damaged chunks are lost, as far as an index counts them."""
        return sum(self._lost.values())

    def messages(self, topics: Collection[str], tell: Tell) -> Iterator[Message]:
        """
        Yield the topics' messages by log time; memory holds the chunks that overlap.

        tell: called with what turns out damaged. Raises DataError where they hold more than the
        largest message may.
        """
        chosen = {number for number, key in self._keys.items() if key[0] in topics}
        with open_by_range(self._path) as file:
            heap: list[_Item] = []
            held = 0
            for start, place, chunk in self._places(chosen):
                while heap and heap[0][:2] < (start, place):
                    held -= len(heap[0][4])
                    yield self._popped(heap)
                for item in self._items(file, place, chunk, tell):
                    if item[3] in chosen:
                        heapq.heappush(heap, item)
                        held += len(item[4])
                if held > MOST_BYTES:
                    raise DataError(f'chunks that begin by {start} ns overlap by {held} bytes')
            while heap:
                yield self._popped(heap)

    def _popped(self, heap: list[_Item]) -> Message:
        time, _, _, channel, data = heapq.heappop(heap)
        return Message(*self._keys[channel], time, data)

    def _places(self, chosen: set[int]) -> list[tuple[int, int, Chunk | None]]:
        """Return (log time, byte, chunk or None for a loose message) in the order of reading."""
        chunks = [chunk for chunk in self._index.chunks if chosen & chunk.counts.keys()]
        loose = [(t, place, None) for t, place, number in self._index.loose if number in chosen]
        places = [(chunk.start_ns, chunk.place, chunk) for chunk in chunks]
        return sorted([*places, *loose], key=lambda place: place[:2])

    def _items(self, file: BinaryIO, place: int, chunk: Chunk | None, tell: Tell) -> list[_Item]:
        """Return the messages of a chunk, none and a word where it is damaged; or a loose one."""
        if chunk is None:
            return [_message(place, 0, read_body(file, place))]
        items, damage = self._read(file, chunk)
        if damage:
            tell(damage)
        return items

    def _read(self, file: BinaryIO, chunk: Chunk) -> tuple[list[_Item], str]:
        """Return a chunk's messages and '' or what is lost of it."""
        try:
            items, reason = self._chunk_items(file, chunk), 'its index names more than it holds'
        except DataError as error:
            items, reason = [], str(error)
            if not chunk.counts:
                return [], self._damaged(chunk, reason, 'an unknown number of messages is lost')
        missing = chunk.counts - Counter(item[3] for item in items)
        self._lost[chunk.place] = missing.total()
        if not missing:
            return items, ''
        by_topic = sorted(self._by_topic(missing).items())
        words = ', '.join(f'{topic} {count}' for (topic, _), count in by_topic if count)
        lost = f'{missing.total()} messages are lost ({words})'
        return items, self._damaged(chunk, reason, lost)

    def _chunk_items(self, file: BinaryIO, chunk: Chunk) -> list[_Item]:
        """Return a chunk's messages, and keep the channels that it defines; DataError."""
        items: list[_Item] = []
        block = read_chunk(file, chunk.place)
        try:
            for number, (opcode, body) in enumerate(split_records(block)):
                if number >= _MOST_RECORDS:
                    raise DataError(f'it holds more than {_MOST_RECORDS} records')
                if opcode == MESSAGE:
                    items.append(_message(chunk.place, number, body))
                else:
                    self._index.define(opcode, body)
        except UNREADABLE as error:
            raise DataError(f'a record in it cannot be read: {error}') from error
        return items

    def _count(self, file: BinaryIO) -> Counter[int]:
        """Read the whole file; keep only chunks that can be read, with their true counts."""
        read: list[Chunk] = []
        for chunk in self._index.chunks:
            items, damage = self._read(file, chunk)
            read.append(Chunk(chunk.place, chunk.start_ns, Counter(item[3] for item in items)))
            if damage:
                self._index.damages.append(damage)
        self._index.chunks = read
        return self._index.counts()

    def _damaged(self, chunk: Chunk, reason: str, lost: str) -> str:
        return f'its chunk at byte {chunk.place} is damaged ({reason}): {lost}'

    def _key(self, number: int) -> tuple[str, str]:
        """Return a channel's topic and message type."""
        channel = self._index.channels[number]
        name = self._index.schemas.get(channel.schema_id, '')
        return channel.topic, message_type(name, channel.message_encoding)

    def _by_topic(self, counts: Counter[int]) -> Counts:
        """Return counts by topic and type, without channels that nothing defines."""
        found: Counts = {}
        for number in counts.keys() & self._index.channels.keys():
            key = self._key(number)
            found[key] = found.get(key, 0) + counts[number]
        return found


def _message(place: int, number: int, body: bytes) -> _Item:
    channel, _, time, _ = MESSAGE_HEAD.unpack_from(body)
    return time, place, number, channel, body[MESSAGE_HEAD.size :]
