# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Files of the MCAP format for the tests: by the format's own writer, then changed by records."""

import struct
from pathlib import Path

from bag_files import Maker
from mcap.writer import CompressionType, Writer

MAGIC = 8
COMPRESSIONS = {
    'none': CompressionType.NONE,
    'lz4': CompressionType.LZ4,
    'zstd': CompressionType.ZSTD,
}
FOOTER, SCHEMA, CHANNEL, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = 2, 3, 4, 6, 7, 8
STATISTICS, SUMMARY_OFFSET, DATA_END = 11, 14, 15


def write_mcap(
    path,
    messages,
    compression='none',
    chunk_size=40_000,
    others=(),
    profile='ros2',
    attachments=False,
    **options,
):
    """
    Write (topic, type, log time, CDR) tuples as one .mcap file; return its path.

    attachments: put an attachment and a metadata record after each message.
    others: (topic, message encoding, schema encoding or None, schema name, log time, bytes).
    """
    store, path = Maker().store, Path(path)
    with path.open('wb') as file:
        writer = Writer(
            file, compression=COMPRESSIONS[compression], chunk_size=chunk_size, **options
        )
        writer.start(profile, library='test')
        channels = {}
        for topic, kind, time, data in messages:
            if (topic, kind) not in channels:
                text, _ = store.generate_msgdef(kind)
                schema = writer.register_schema(kind, 'ros2msg', text.encode())
                channels[topic, kind] = writer.register_channel(topic, 'cdr', schema)
            writer.add_message(channels[topic, kind], time, data, time)
            if attachments:
                writer.add_attachment(time, time, 'note.txt', 'text/plain', bytes(300))
                writer.add_metadata('note', {'a': 'b'})
        for topic, encoding, schema_encoding, name, time, data in others:
            schema = writer.register_schema(name, schema_encoding, b'{}') if name else 0
            writer.add_message(writer.register_channel(topic, encoding, schema), time, data, time)
        writer.finish()
    return path


def records(data):
    """Return [place, opcode, body] of each record of a whole file."""
    place, found = MAGIC, []
    while place < len(data) - MAGIC:
        (length,) = struct.unpack_from('<Q', data, place + 1)
        found.append([place, data[place], data[place + 9 : place + 9 + length]])
        place += 9 + length
    return found


def rewrite(path, change):
    """
    Change a file by its records: change(opcode, number of its opcode, in the summary, body)
    returns the body or None to leave the record out. Places in the index follow.
    """
    data = path.read_bytes()
    out, moved, counts, summary = bytearray(data[:MAGIC]), {}, {}, 0
    for place, opcode, body in records(data):
        number = counts[opcode] = counts.get(opcode, -1) + 1
        if opcode == CHUNK:
            moved[place] = len(out)
        if opcode == CHUNK_INDEX:
            (old,) = struct.unpack_from('<Q', body, 16)
            body = body[:16] + struct.pack('<Q', moved[old]) + body[24:]
        if opcode == FOOTER:
            start = summary if summary != len(out) else 0
            body = struct.pack('<QQI', start, 0, 0)
        elif opcode == SUMMARY_OFFSET:
            continue
        else:
            body = change(opcode, number, bool(summary), body)
        if body is not None:
            out += bytes([opcode]) + struct.pack('<Q', len(body)) + body
        if opcode == DATA_END:
            summary = len(out)
    path.write_bytes(bytes(out) + data[-MAGIC:])


def without_index_of_messages(body):
    """Return a ChunkIndex that names no MessageIndex."""
    (size,) = struct.unpack_from('<I', body, 32)
    return body[:32] + struct.pack('<IQ', 0, 0) + body[36 + size + 8 :]


def chunk_places(path):
    """Return (byte of its first data, length of the data) of each chunk."""
    found = []
    for place, opcode, body in records(path.read_bytes()):
        if opcode == CHUNK:
            (letters,) = struct.unpack_from('<I', body, 28)
            start = 32 + letters + 8
            found.append((place + 9 + start, len(body) - start))
    return found


def flip(path, place):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(bytes(data))
