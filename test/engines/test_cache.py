# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled heads are kept, found again for the same use only, and never trusted unread."""

import logging

import numpy as np
import pytest

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions

openvino = pytest.importorskip('openvino')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'compiled'


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def score(bundle, **options):
    image = np.random.default_rng(3).integers(0, 256, (1, 56, 84, 3), dtype=np.uint8)
    with create_engine(bundle, EngineOptions('openvino', threads=1, **options)) as engine:
        vector = np.ones(len(engine.compiled_classes), np.float32)
        return engine.run(image, vector).surprisal


def blobs(cache):
    return sorted(cache.glob('*.blob'))


def test_the_second_start_imports_and_gives_the_same_bits(bundle, cache):
    first = score(bundle)
    kept = {path: path.stat().st_mtime_ns for path in blobs(cache)}

    second = score(bundle)

    assert kept
    assert {path: path.stat().st_mtime_ns for path in blobs(cache)} == kept
    np.testing.assert_array_equal(first, second)


def test_the_key_holds_what_the_compilation_depends_on(bundle, cache):
    score(bundle, precision='f32')
    count = len(blobs(cache))
    score(bundle, precision='f32', compiled_classes=('Road',))

    assert len(blobs(cache)) == count + 1
    text = next(cache.glob('*.json')).read_text()
    for part in ('graph', f'openvino {openvino.__version__}', 'device', 'streams', 'PRECISION'):
        assert part in text


@pytest.mark.parametrize('damage', ['flip', 'cut', 'no description', 'foreign description'])
def test_a_damaged_entry_is_compiled_again(bundle, cache, damage):
    expected = score(bundle)
    for path in blobs(cache):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == 'no description':
            path.with_suffix('.json').unlink()
        elif damage == 'foreign description':
            path.with_suffix('.json').write_text('[1, 2]')
        else:
            path.write_bytes(data if damage == 'flip' else data[:100])

    np.testing.assert_array_equal(score(bundle), expected)
    for path in blobs(cache):
        assert path.with_suffix('.json').is_file()


def test_a_blob_that_the_runtime_refuses_is_compiled_again(bundle, cache, monkeypatch):
    expected = score(bundle)
    monkeypatch.setattr(compiled_cache, 'load', lambda key: b'something else')

    np.testing.assert_array_equal(score(bundle), expected)


def test_a_cache_that_cannot_be_written_only_costs_time(bundle, tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').write_text('no folder')
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'file' / 'below'))

    with caplog.at_level(logging.WARNING):
        assert np.isfinite(score(bundle)).all()
    assert 'not kept for the next start' in caplog.text


def test_entries_are_found_by_the_whole_key(cache):
    key = {'graph': 'a', 'batch': '1'}
    compiled_cache.obtain(key, lambda: (b'compiled', {}))

    assert compiled_cache.load(key) == b'compiled'
    assert compiled_cache.load({**key, 'batch': '2'}) is None
    assert compiled_cache.load({**key, 'graph': 'b'}) is None
