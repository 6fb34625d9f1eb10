# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""No recorded message vanishes without a word: what an index hides is read, what is lost told."""

import random
import shutil
import sqlite3
import struct

import pytest

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from bag_files import FRONT, LEFT, storage_file, two_cameras, write_bag
from mcap_files import (
    CHANNEL,
    CHUNK,
    CHUNK_INDEX,
    MESSAGE_INDEX,
    SCHEMA,
    STATISTICS,
    chunk_places,
    flip,
    records,
    rewrite,
    without_index_of_messages,
    write_mcap,
)

from ood_perception.bags.problems import DAMAGED_FILE, FEWER_MESSAGES, UNNAMED_FILE, Problems
from ood_perception.bags.reading import Bag, Limits
from ood_perception.errors import DataError

MESSAGES = two_cameras(6)  # a chunk holds one pair


def read(path, tmp_path, on_error='fail'):
    """Return (messages as tuples, the closed bag, its problems)."""
    problems = Problems(on_error)
    with Bag(path, problems, Limits(), tmp_path) as bag:
        assert sum(bag.topics.values()) <= len(MESSAGES)
        found = [(m.topic, m.msgtype, m.time_ns, m.data) for m in bag.messages((FRONT, LEFT))]
    return found, bag, problems


def drop(*dropped, where=None):
    """Return a change that leaves records out, all or those of one number."""

    def change(opcode, number, summary, body):
        return None if opcode in dropped and where in (None, number) else body

    return change


def unindexed_chunk(opcode, number, summary, body):
    """What some writers do with a message that is larger than a chunk; two messages a chunk."""
    if opcode == MESSAGE_INDEX:
        return None if number in (2, 3) else body
    return without_index_of_messages(body) if (opcode, number) == (CHUNK_INDEX, 1) else body


def summary_without(*dropped):
    return lambda opcode, number, summary, body: None if summary and opcode in dropped else body


def nowhere(opcode, number, summary, body):
    return body[:16] + bytes(8) + body[24:] if opcode == CHUNK_INDEX and number else body


INDEXES = {
    'whole': lambda opcode, number, summary, body: body,
    'a chunk without MessageIndex': unindexed_chunk,
    'one channel of a chunk without MessageIndex': drop(MESSAGE_INDEX, where=2),
    'no MessageIndex': drop(MESSAGE_INDEX),
    'no ChunkIndex': drop(CHUNK_INDEX),
    'a chunk without ChunkIndex': drop(CHUNK_INDEX, where=2),
    'ChunkIndex of byte 0': nowhere,
    'no statistics': drop(STATISTICS),
    'no statistics, one channel without MessageIndex': lambda opcode, number, summary, body: (
        None if opcode == STATISTICS or (opcode, number) == (MESSAGE_INDEX, 2) else body
    ),
    'no channels in the summary': summary_without(SCHEMA, CHANNEL),
    'no summary': lambda opcode, number, summary, body: None if summary else body,
}  # fmt: skip


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize('index', INDEXES)
def test_every_message_is_read_whatever_the_index_lacks(tmp_path, index, compression):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES, compression)
    assert len(chunk_places(path)) == 6
    rewrite(path, INDEXES[index])
    found, bag, _ = read(path, tmp_path)
    assert found == MESSAGES
    assert sum(bag.topics.values()) == len(MESSAGES)
    assert bag.lost == 0


@pytest.mark.parametrize('options', [{'use_chunking': False}, {'chunk_size': 1}, {}])
def test_messages_in_any_order_come_sorted_by_log_time(tmp_path, options):
    mixed = random.Random(3).sample(MESSAGES, len(MESSAGES))
    assert mixed != MESSAGES
    found, _, _ = read(write_mcap(tmp_path / 'bag.mcap', mixed, **options), tmp_path)
    assert found == MESSAGES


@pytest.mark.parametrize('chunked', [True, False])
@pytest.mark.parametrize('index', ['whole', 'no summary'])
def test_attachments_and_metadata_lie_between(tmp_path, chunked, index):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES, attachments=True, use_chunking=chunked)
    rewrite(path, INDEXES[index])
    assert read(path, tmp_path)[0] == MESSAGES


def check_middle_lost(path, tmp_path, lost, word):
    found, bag, problems = read(path, tmp_path, 'skip')
    assert found == [m for m in MESSAGES if m not in lost]
    assert problems.counts == {DAMAGED_FILE: 1}
    assert bag.lost == len(lost)
    assert word in problems.told[0].text
    assert str(path) in problems.told[0].text
    with pytest.raises(DataError, match=r'bag\.mcap'):
        read(path, tmp_path)


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize('index', ['whole', 'no summary', 'no statistics', 'no MessageIndex'])
def test_behind_a_damaged_chunk_the_reading_goes_on(tmp_path, compression, index):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES, compression)
    rewrite(path, INDEXES[index])
    start, length = chunk_places(path)[1]
    flip(path, start + length // 2)
    word = 'unknown number' if index == 'no MessageIndex' else f'{FRONT} 1'
    check_middle_lost(path, tmp_path, MESSAGES[2:4], word)


def test_a_damaged_length_of_a_chunk_hides_that_chunk_alone(tmp_path):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES)
    place = [place for place, opcode, _ in records(path.read_bytes()) if opcode == CHUNK][1]
    flip(path, place + 3)
    check_middle_lost(path, tmp_path, MESSAGES[2:4], f'byte {place}')


def test_a_chunk_of_zeros_hides_that_chunk_alone(tmp_path):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES, 'zstd')
    data = bytearray(path.read_bytes())
    start, length = chunk_places(path)[1]
    data[start - 60 : start + length] = bytes(60 + length)
    path.write_bytes(bytes(data))
    check_middle_lost(path, tmp_path, MESSAGES[2:4], 'damaged')


def test_data_that_is_missing_before_a_whole_footer_is_told(tmp_path):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES, 'none')
    data = path.read_bytes()
    start, length = chunk_places(path)[3]
    path.write_bytes(data[:start] + data[start + length // 2 :])
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES[:6]
    assert problems.counts == {DAMAGED_FILE: 1}


def test_statistics_that_rate_more_are_a_problem(tmp_path):
    path = write_mcap(tmp_path / 'bag.mcap', MESSAGES)

    def rates(opcode, number, summary, body):
        if opcode != STATISTICS:
            return body
        total, first = struct.unpack_from('<Q', body)[0], struct.unpack_from('<Q', body, 48)[0]
        body = struct.pack('<Q', total + 3) + body[8:]
        return body[:48] + struct.pack('<Q', first + 3) + body[56:]

    rewrite(path, rates)
    found, bag, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES
    assert problems.counts == {FEWER_MESSAGES: 1}
    assert bag.lost == 3
    assert f'9 messages of {FRONT}, 6 are there' in problems.told[0].text


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('\n  message_count: 12', '\n  message_count: 40', '40 messages, 12 are there'),
        ('message_count: 6', 'message_count: 7', f'7 messages of {FRONT}, 6 are there'),
    ],
)
def test_metadata_that_declares_more_is_a_problem(tmp_path, storage, old, new, words):
    path = write_bag(tmp_path / 'bag', MESSAGES, storage)
    text = (path / 'metadata.yaml').read_text()
    assert old in text
    (path / 'metadata.yaml').write_text(text.replace(old, new, 1))
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES
    assert problems.counts == {FEWER_MESSAGES: 1}
    assert words in problems.told[0].text
    with pytest.raises(DataError, match='declares'):
        read(path, tmp_path)


def test_a_split_bag_with_an_empty_part_is_a_problem(tmp_path):
    path = write_bag(tmp_path / 'bag', MESSAGES[:6])
    other = storage_file(write_bag(tmp_path / 'other', []))
    shutil.copy(other, path / 'bag_1.mcap')
    text = (path / 'metadata.yaml').read_text().replace('- bag.mcap', '- bag.mcap\n  - bag_1.mcap')
    text = text.replace('\n  message_count: 6', '\n  message_count: 12')
    (path / 'metadata.yaml').write_text(text)
    found, bag, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES[:6]
    assert set(problems.counts) <= {FEWER_MESSAGES, DAMAGED_FILE}
    assert sum(problems.counts.values()) == 1
    assert bag.lost == 6


def test_a_file_that_metadata_does_not_name_is_told(tmp_path):
    path = write_bag(tmp_path / 'bag', MESSAGES[:6])
    shutil.copy(storage_file(write_bag(tmp_path / 'b', MESSAGES[6:])), path / 'bag_1.mcap')
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES[:6]
    assert problems.counts == {UNNAMED_FILE: 1}
    assert 'bag_1.mcap' in problems.told[0].text


def test_a_file_that_lies_there_packed_and_unpacked_is_read_once(tmp_path):
    """Players unpack a file beside the packed one, and leave it there."""
    path = write_bag(tmp_path / 'bag', MESSAGES, 'mcap', 'file')
    plain = storage_file(write_bag(tmp_path / 'plain', MESSAGES))
    shutil.copy(plain, path / 'bag.mcap')
    shutil.copy(plain, path / '._bag.mcap')
    assert read(path, tmp_path)[0] == MESSAGES
    (path / 'metadata.yaml').unlink()
    assert read(path, tmp_path)[0] == MESSAGES


# --- databases ---------------------------------------------------------------------------------


def insert(database, messages):
    for topic, _, time, data in messages:
        ((number,),) = database.execute('SELECT id FROM topics WHERE name = ?', (topic,))
        database.execute(
            'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)',
            (number, time, data),
        )


def killed(tmp_path, commit, journal):
    """Return the .db3 of a recorder that was killed after 6 messages, and has 6 in its journal."""
    file = storage_file(write_bag(tmp_path / 'made', MESSAGES[:6], 'sqlite3'))
    database = sqlite3.connect(file)
    database.execute(f'PRAGMA journal_mode = {journal}')
    database.execute('PRAGMA wal_autocheckpoint = 0')
    database.execute('PRAGMA cache_size = 2')
    insert(database, MESSAGES[6:])
    if commit:
        database.commit()
    folder = tmp_path / 'killed'
    folder.mkdir()
    for one in file.parent.glob('made.db3*'):
        if not one.name.endswith('-shm'):
            shutil.copy(one, folder)
    database.close()
    return folder / 'made.db3'


@pytest.mark.parametrize('as_folder', [True, False])
def test_messages_in_the_write_ahead_log_are_read(tmp_path, as_folder):
    path = killed(tmp_path, True, 'WAL')
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert set(before) == {'made.db3', 'made.db3-wal'}
    found, bag, _ = read(path.parent if as_folder else path, tmp_path)
    assert found == MESSAGES
    assert any('made.db3' in note for note in bag.notes)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before, 'untouched'


def test_the_log_is_read_where_the_recording_is_read_only(tmp_path):
    path = killed(tmp_path, True, 'WAL')
    for one in path.parent.iterdir():
        one.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert read(path, tmp_path)[0] == MESSAGES
    finally:
        path.parent.chmod(0o755)


def test_a_log_that_was_cut_is_told(tmp_path):
    path = killed(tmp_path, True, 'WAL')
    log = path.with_name('made.db3-wal')
    log.write_bytes(log.read_bytes()[: log.stat().st_size * 2 // 3])
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES[: len(found)]
    assert len(found) < len(MESSAGES)
    assert problems.counts == {DAMAGED_FILE: 1}
    assert 'made.db3-wal' in problems.told[0].text


def test_an_unfinished_transaction_is_rolled_back_and_told(tmp_path):
    path = killed(tmp_path, False, 'DELETE')
    assert path.with_name('made.db3-journal').stat().st_size > 0
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == MESSAGES[:6]
    assert problems.counts == {DAMAGED_FILE: 1}
    assert 'transaction' in problems.told[0].text


def test_an_empty_log_is_no_news(tmp_path):
    path = storage_file(write_bag(tmp_path / 'bag', MESSAGES, 'sqlite3'))
    path.with_name('bag.db3-wal').write_bytes(b'')
    found, bag, _ = read(path, tmp_path)
    assert found == MESSAGES
    assert bag.notes == []


def test_behind_a_damaged_page_of_a_database_the_reading_goes_on(tmp_path):
    messages = two_cameras(6)
    path = storage_file(write_bag(tmp_path / 'bag', messages, 'sqlite3'))
    with sqlite3.connect(path) as database:
        ((size,),) = database.execute('PRAGMA page_size')
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'")
    data = bytearray(path.read_bytes())
    leaves = [
        page for page in range(root, len(data) // size)
        if data[page * size] == 0x0D and page != root - 1
    ]  # fmt: skip
    assert len(leaves) >= 2
    page = leaves[len(leaves) // 2]
    data[page * size : page * size + 8] = bytes(8)
    path.write_bytes(bytes(data))
    found, _, problems = read(path, tmp_path, 'skip')
    assert found[0] == messages[0]
    assert found[-1] == messages[-1]
    assert len(found) < len(messages)
    assert problems.counts == {DAMAGED_FILE: 1}
