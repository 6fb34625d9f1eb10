# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that are small on disk and large or endless in memory, and databases that compute."""

import io
import sqlite3
import struct
import time

import pytest
from bag_files import Maker
from mcap_files import CHUNK_INDEX, rewrite, write_mcap
from memory import peak_mib

from ood_perception.bags import mcap_file, mcap_index
from ood_perception.bags.compression import zstd_library
from ood_perception.bags.database_file import DatabaseFile
from ood_perception.bags.mcap_file import McapFile
from ood_perception.bags.mcap_index import read_chunk
from ood_perception.errors import DataError


def chunk(data, size, compression=b'zstd', packed=None):
    """Return a file that is one chunk record, which says what it likes of its sizes."""
    head = struct.pack('<QQQII', 0, 0, size, 0, len(compression)) + compression
    body = head + struct.pack('<Q', len(data) if packed is None else packed) + data
    return io.BytesIO(struct.pack('<BQ', 6, len(body)) + body)


def packed_zeros(mib):
    return bytes(zstd_library().compress(bytes(mib << 20)))


@pytest.mark.parametrize(
    ('data', 'size', 'packed'),
    [
        (packed_zeros(1), 1 << 62, None),
        (packed_zeros(1), 4 << 30, None),
        (packed_zeros(1), 1 << 30, None),
        (packed_zeros(64), 1000, None),
        (b'x', 1, 1 << 62),
    ],
)
def test_a_chunk_that_lies_about_its_size_takes_no_memory(data, size, packed):
    with peak_mib() as used, pytest.raises(DataError):
        read_chunk(chunk(data, size, packed=packed), 0)
    assert used() < 16


def test_a_chunk_of_a_million_frames_ends_soon():
    frames = bytes(zstd_library().compress(b'')) * 300_000
    begin = time.process_time()
    with pytest.raises(DataError, match='frames'):
        read_chunk(chunk(frames, 100), 0)
    assert time.process_time() - begin < 5


def test_a_chunk_may_hold_some_frames():
    compress = zstd_library().compress
    assert read_chunk(chunk(bytes(compress(b'ab')) + bytes(compress(b'c')), 3), 0) == b'abc'


def test_chunks_that_overlap_hold_no_more_than_the_largest_message(tmp_path, monkeypatch):
    text, times = Maker().text('x' * 500), (1, 100, 2, 101, 3, 102)
    messages = [('/a', 'std_msgs/msg/String', time, text) for time in times]
    bag = McapFile(write_mcap(tmp_path / 'a.mcap', messages, chunk_size=1000))
    assert [time for *_, time, _ in bag.messages(['/a'], print)] == sorted(times)
    monkeypatch.setattr(mcap_file, 'MOST_BYTES', 1200)
    with pytest.raises(DataError, match='overlap'):
        list(bag.messages(['/a'], print))


def test_a_chunk_of_empty_records_makes_no_million_of_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_file, '_MOST_RECORDS', 10)
    maker = Maker()
    messages = [('/a', 'std_msgs/msg/String', time, maker.text('')) for time in range(20)]
    bag = McapFile(write_mcap(tmp_path / 'a.mcap', messages))
    told = []
    assert list(bag.messages(['/a'], told.append)) == []
    assert 'more than 10 records' in told[0]


def test_the_cap_of_a_chunk_has_room_for_the_largest_message():
    assert mcap_index.MOST_BYTES > mcap_index.MAX_MESSAGE_BYTES


BEYOND = struct.pack('<Q', (1 << 64) - 1)


@pytest.mark.parametrize('record', ['footer', 'index'])
def test_a_place_beyond_every_file_hides_no_message(tmp_path, record):
    maker = Maker()
    messages = [('/a', 'std_msgs/msg/String', time, maker.text('x')) for time in range(3)]
    path = write_mcap(tmp_path / 'a.mcap', messages)
    if record == 'footer':
        data = path.read_bytes()
        path.write_bytes(data[:-28] + BEYOND + data[-20:])
    else:
        rewrite(
            path,
            lambda opcode, number, summary, body: (
                body[:16] + BEYOND + body[24:] if opcode == CHUNK_INDEX else body
            ),
        )
    bag = McapFile(path)
    assert ('summary' in bag.damage) == (record == 'footer')
    assert [time for *_, time, _ in bag.messages(['/a'], print)] == [0, 1, 2]


TOPICS = 'CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format)'
ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)'


@pytest.mark.parametrize(
    'script',
    [
        f'{TOPICS}; CREATE VIEW messages AS {ENDLESS} SELECT i AS id, 1 AS topic_id, '
        'i AS timestamp, zeroblob(1000000000) AS data FROM n',
        f'{TOPICS}; CREATE VIEW Messages AS {ENDLESS} SELECT i AS id, 1 AS topic_id, '
        "i AS timestamp, x'00' AS data FROM n",
        f'{TOPICS}; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data '
        'GENERATED ALWAYS AS (zeroblob(1000000000)) VIRTUAL)',
        f'CREATE VIEW topics AS {ENDLESS} SELECT i AS id, i AS name, i AS type, '
        'i AS serialization_format FROM n; CREATE TABLE messages(id, topic_id, timestamp, data)',
        f'{TOPICS}; CREATE VIRTUAL TABLE messages USING fts4(topic_id, timestamp, data)',
    ],
    ids=['view', 'letters', 'generated', 'topics', 'virtual'],
)
def test_a_database_that_computes_its_messages_is_refused(tmp_path, script):
    database = sqlite3.connect(tmp_path / 'a.db3')
    database.executescript(script)
    if 'CREATE TABLE messages(id INTEGER' in script:
        database.execute('INSERT INTO messages(id, topic_id, timestamp) VALUES (1, 1, 1)')
    database.commit()
    database.close()

    begin = time.process_time()
    with pytest.raises(DataError, match='are computed, not stored'):
        DatabaseFile(tmp_path / 'a.db3')
    assert time.process_time() - begin < 5
