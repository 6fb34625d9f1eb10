# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings of any bytes: messages, a problem that is counted, or one of the own errors."""

import tempfile
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip('rosbags', reason='reading bags needs rosbags (extra bags)')

from bag_files import COMPRESSED, RAW, storage_file, two_cameras, write_bag
from fuzzing import changed, fuzzed, hypothesis, own_error_or_none, seldom, st

from ood_perception.bags.cameras import camera_frames, open_cameras
from ood_perception.bags.compression import unpack_message, zstd_library
from ood_perception.bags.messages import Cdr
from ood_perception.bags.problems import Problems
from ood_perception.bags.reading import Bag, Limits
from ood_perception.image.decode import FrameDecoder

cdr = cache(Cdr)
LIMITS = Limits(message=4 << 20, file=16 << 20)


@cache
def whole(storage, compression='none'):
    folder = Path(tempfile.mkdtemp()) / 'bag'
    return write_bag(folder, two_cameras(2), storage, compression)


def read(path):
    with Bag(path, Problems(), LIMITS) as bag:
        return sum(1 for _ in camera_frames(bag, open_cameras(bag)))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_the_whole_recording_is_read(storage):
    """The inputs below begin from one that gives frames."""
    assert read(whole(storage)) == 4


@seldom
@hypothesis.given(data=st.data())
def test_mcap(tmp_path, data):
    path = tmp_path / 'a.mcap'
    path.write_bytes(data.draw(changed(storage_file(whole('mcap')).read_bytes())))
    own_error_or_none(lambda: read(path))


@seldom
@hypothesis.given(data=st.data())
def test_databases(tmp_path, data):
    path = tmp_path / 'a.db3'
    path.write_bytes(data.draw(changed(storage_file(whole('sqlite3')).read_bytes())))
    own_error_or_none(lambda: read(path))


@seldom
@hypothesis.given(data=st.data())
def test_metadata(tmp_path, data):
    bag, file = tmp_path / 'bag', storage_file(whole('mcap'))
    bag.mkdir(exist_ok=True)
    (bag / file.name).write_bytes(file.read_bytes())
    described = (whole('mcap') / 'metadata.yaml').read_bytes()
    (bag / 'metadata.yaml').write_bytes(data.draw(changed(described)))
    own_error_or_none(lambda: read(bag))


@cache
def stored(kind):
    return next(data for _, type_, _, data in two_cameras(1) if type_ == kind)


@fuzzed
@hypothesis.given(data=st.data(), kind=st.sampled_from([RAW, COMPRESSED]))
def test_messages(data, kind):
    content = data.draw(changed(stored(kind)))
    own_error_or_none(lambda: FrameDecoder('').decode(cdr().read(content, kind), None))


@fuzzed
@hypothesis.given(data=st.data())
def test_packed_messages(data):
    packed = bytes(zstd_library().compress(stored(COMPRESSED)))
    own_error_or_none(lambda: unpack_message(data.draw(changed(packed)), LIMITS.message))
