# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The engine cache among real processes: one builds, a kill leaves it usable, damage is named."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from limits import HANGS
from quantized_bundles import write_quantized_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.cpu import openvino_int8
from ood_perception.engines.trial import remember
from ood_perception.errors import BundleError

pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')
pytestmark = pytest.mark.slow
# Where this CPU's int8 is refused the cache is used in float32: it is the same cache.
REFUSED = openvino_int8().refused
PRECISION = 'f32' if REFUSED else 'int8'
BLOBS = 2 if REFUSED else 3  # backbone and head compiled, and the int8 graph

# Starts when it is told to, as nodes of one launch file do; counts what it builds itself.
USER = """
import sys
from pathlib import Path
import numpy as np
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import cache as compiled_cache, create_engine
from ood_perception.engines.base import EngineOptions

built = []
write = compiled_cache._write_entry
def counted(key, blob, facts):
    built.append(facts.get('stage', '?'))
    write(key, blob, facts)
compiled_cache._write_entry = counted
bundle = load_bundle(sys.argv[1])
print('ready', flush=True)
sys.stdin.readline()
engine = create_engine(bundle, EngineOptions('openvino', sys.argv[3], 1))
image = np.random.default_rng(3).integers(0, 256, (1, 56, 84, 3), dtype=np.uint8)
np.save(sys.argv[2], engine.run(image, engine.class_vector(['Road'])).surprisal)
print('built', *built, flush=True)
"""
COMPILE = (
    'import sys; from ood_perception.cli.bundle import compile_bundle; '
    'print("ready", flush=True); '
    'sys.stdin.readline(); sys.exit(compile_bundle(sys.argv[1:]))'
)


@pytest.fixture
def cache(path, tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    remember(load_bundle(path).sha256)  # for the processes of the test
    return tmp_path / 'cache' / 'compiled'


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_quantized_bundle(tmp_path_factory.mktemp('cache') / 'bundle', upsampling=7)


def start(code, *arguments):
    process = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout.readline() == 'ready\n', process.stderr.read()
    return process


def go(process):
    process.stdin.write('\n')
    process.stdin.flush()


def score(path, **options):
    image = np.random.default_rng(3).integers(0, 256, (1, 56, 84, 3), dtype=np.uint8)
    options = {'precision': PRECISION, **options}
    with create_engine(
        load_bundle(path), EngineOptions('openvino', threads=1, **options)
    ) as engine:
        return engine.run(image, engine.class_vector(['Road'])).surprisal


def test_two_nodes_and_one_compile_build_once(path, cache, tmp_path):
    nodes = [start(USER, path, tmp_path / f'{i}.npy', PRECISION) for i in range(2)]
    options = ['--engine', 'openvino', '--precision', PRECISION, '--threads', '1']
    compiling = start(COMPILE, path, *options)
    for process in (*nodes, compiling):
        go(process)
    outputs = [process.communicate(timeout=HANGS) for process in (*nodes, compiling)]

    assert [p.returncode for p in (*nodes, compiling)] == [0, 0, 0], outputs
    assert len(list(cache.glob('*.blob'))) == BLOBS
    by_nodes = [name for out, _ in outputs[:2] for name in out.split() if name != 'built']
    # the int8 graph and what is compiled of it both tell the stage 'backbone'
    assert by_nodes.count('backbone') <= BLOBS - 1, 'a stage was built twice'
    assert by_nodes.count('head') <= 1, 'a stage was built twice'
    assert not any('damaged' in error for _, error in outputs)
    np.testing.assert_array_equal(np.load(tmp_path / '0.npy'), np.load(tmp_path / '1.npy'))


@pytest.mark.parametrize('after', [0.02, 0.2, 0.5])
def test_a_killed_builder_leaves_the_cache_usable(path, cache, tmp_path, after):
    process = start(USER, path, tmp_path / 'killed.npy', PRECISION)
    go(process)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=HANGS)

    next_one = start(USER, path, tmp_path / 'next.npy', PRECISION)
    go(next_one)
    _, error = next_one.communicate(timeout=HANGS)
    assert next_one.returncode == 0, error
    assert 'damaged' not in error  # what is there is whole, what is not whole is not there
    np.testing.assert_array_equal(np.load(tmp_path / 'next.npy'), score(path))
    assert len(list(cache.glob('*.blob'))) == BLOBS
    assert not list(cache.glob('.*.blob.??*')), 'temporary files of the dead builder'


def test_a_builder_killed_at_every_step_of_writing(path, cache, tmp_path):
    # Not by the clock: the process ends itself between any two of the cache's renames.
    code = USER.replace(
        "print('ready'",
        """import os
replace, left = os.replace, [int(sys.argv[4])]
def dying(a, b):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    replace(a, b)
os.replace = dying
print('ready'""",
    )
    # two renames a blob; each process finds what the ones before it finished
    for steps in (0, *[1, 2] * (BLOBS - 1), 1, 2 * BLOBS):
        process = start(code, path, tmp_path / 'dying.npy', PRECISION, steps)
        go(process)
        _, error = process.communicate(timeout=HANGS)
        assert process.returncode == (0 if steps == 2 * BLOBS else 9), error
        assert 'damaged' not in error
    np.testing.assert_array_equal(np.load(tmp_path / 'dying.npy'), score(path))


@pytest.mark.parametrize('suffix', ['.blob', '.json'])
def test_a_flipped_byte_in_engine_or_sidecar_is_named_and_made_again(path, cache, caplog, suffix):
    expected = score(path)
    for file in sorted(cache.glob(f'*{suffix}')):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        caplog.clear()
        np.testing.assert_array_equal(score(path), expected)
        assert str(file) in caplog.text
        assert 'damaged' in caplog.text
        caplog.clear()
        score(path)
        assert 'damaged' not in caplog.text


@pytest.mark.parametrize('name', ['backbone.onnx', 'head.onnx', 'quantization.json', 'golden.npz'])
def test_a_flipped_byte_in_the_bundle_is_named(tmp_path, name):
    bundle = write_quantized_bundle(tmp_path / 'flipped')
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)

    with pytest.raises(BundleError, match=f'{name} has sha256'):
        load_bundle(bundle)


@pytest.mark.skipif(bool(REFUSED), reason=REFUSED)
def test_the_int8_graph_is_made_once_for_every_use(path, cache):
    score(path)
    graphs = {file: file.stat().st_mtime_ns for file in cache.glob('*.blob')}
    score(path, compiled_classes=('Road',))

    assert all(file.stat().st_mtime_ns == stamp for file, stamp in graphs.items())
    assert len(list(cache.glob('*.blob'))) == len(graphs) + 1  # the cut head
