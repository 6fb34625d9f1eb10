# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One build among all processes, whatever is killed when: real processes, TensorRT for RTX."""

import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from limits import HANGS
from paths import ROOT
from tensorrt_facts import require_rtx

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines.trial import remember

TEST = ROOT / 'test' / 'helpers'
KEY = {'kind': 'test', 'batch': '1'}
COMPILE = (
    'import sys; from ood_perception.cli.bundle import compile_bundle as c; '
    'sys.exit(c(sys.argv[1:]))'
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'compiled'


def blob(size=3_000_000):
    return bytes(size)


def build():
    return blob(), {'seconds': 1}


def obtain():
    compiled_cache.obtain(KEY, build)


def test_it_is_built_once_and_its_facts_lie_beside_it(cache):
    assert compiled_cache.obtain(KEY, build) == (blob(), True)
    assert compiled_cache.metadata_of(KEY) == {'seconds': 1}
    assert compiled_cache.obtain(KEY, lambda: pytest.fail('built again')) == (blob(), False)


def test_a_builder_that_fails_leaves_nothing_and_the_next_one_builds(cache):
    def fail():
        raise RuntimeError('no memory')

    with pytest.raises(RuntimeError, match='no memory'):
        compiled_cache.obtain(KEY, fail)

    assert compiled_cache.obtain(KEY, build)[1]


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').write_text('no folder')
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'file' / 'below'))

    with caplog.at_level(logging.WARNING):
        assert compiled_cache.obtain(KEY, build) == (blob(), True)

    assert 'not kept for the next start' in caplog.text


def test_killed_at_any_moment_the_cache_stays_usable(cache, caplog):
    random.seed(0)
    fork = multiprocessing.get_context('fork')
    killed = 0
    for _ in range(25):
        for file in [*cache.glob('*.blob'), *cache.glob('*.json')]:
            file.unlink()
        process = fork.Process(target=obtain)
        process.start()
        time.sleep(random.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert compiled_cache.load(KEY) in (None, blob())
        assert compiled_cache.obtain(KEY, build)[0] == blob()
        assert not [file for file in cache.iterdir() if file.name.startswith('.')]
    assert killed >= 5
    assert compiled_cache.obtain(KEY, lambda: pytest.fail('built again')) == (blob(), False)


@pytest.mark.parametrize('place', range(0, 100, 9))
def test_a_flipped_byte_in_the_sidecar_is_found_wherever_it_is(cache, caplog, place):
    compiled_cache.obtain(KEY, build)
    sidecar = next(cache.glob('*.json'))
    data = bytearray(sidecar.read_bytes())
    data[place * len(data) // 100] ^= 1
    sidecar.write_bytes(data)

    with caplog.at_level(logging.WARNING):
        found = compiled_cache.load(KEY)

    # white space and the like may change without meaning; all else is found and named
    assert (found is None) == (str(sidecar) in caplog.text)
    if found is not None:
        assert compiled_cache.metadata_of(KEY) == {'seconds': 1}


def start(arguments, folder, **environment):
    return subprocess.Popen(
        [sys.executable, '-c', COMPILE, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OOD_PERCEPTION_CACHE': str(folder), **environment},
    )  # fmt: skip


@pytest.fixture
def arguments(tiny_bundle):
    return [str(tiny_bundle), '--engine', 'tensorrt', '--gpu', '8.9']


def test_three_real_builders_at_once_build_once(arguments, tmp_path):
    require_rtx()
    processes = [start(arguments, tmp_path / 'cache') for _ in range(3)]

    outputs = [process.communicate(timeout=HANGS) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    said = ''.join(out for out, _ in outputs)
    assert said.count('built in') == 1
    assert said.count(': found') == 2


def test_a_real_builder_that_is_killed_is_followed_by_one_that_builds(arguments, tmp_path):
    require_rtx()
    folder = tmp_path / 'cache'
    first = start(arguments, folder)
    end = time.monotonic() + HANGS
    while not list(folder.glob('compiled/*.lock')):
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.005)
    second = start(arguments, folder)  # it waits for the first, or finds what that made
    first.kill()
    first.communicate()

    out, error = second.communicate(timeout=HANGS)

    assert second.returncode == 0, error
    assert 'built in' in out or ': found' in out
    assert not list(folder.glob('compiled/.*'))
    third = start(arguments, folder)
    assert ': found' in third.communicate(timeout=HANGS)[0]


NODE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from limits import HANGS
from fake_tensorrt import FakeCuda, fake_tensorrt
from ood_perception.cli import bundle as programs
from ood_perception.engines.tensorrt import engine as tensorrt
cuda = FakeCuda()
trt = fake_tensorrt('11.4', cuda)
slowly = trt.module._build
trt.module._build = lambda *a: (time.sleep(1.5), slowly(*a))[1]
for module in (tensorrt, programs):
    module.load_tensorrt = lambda: trt
    module.load_cuda = lambda: cuda
if sys.argv[2] == 'compile':
    from ood_perception.cli.bundle import compile_bundle
    code = compile_bundle([sys.argv[3], '--engine', 'tensorrt', '--precision', 'f32',
                           '--classes', 'Road'])
    assert code == 0, code
else:
    from ood_perception.ros.model import Model
    from ood_perception.parameters.table import PARAMETERS
    values = {spec.name: spec.default for spec in PARAMETERS}
    values |= {'bundle': sys.argv[3], 'engine': 'tensorrt', 'precision': 'f32'}
    Model(values, print).close()
print('builds', trt.module.builds)
"""


def test_two_nodes_and_one_compile_bundle_on_an_empty_cache_build_once(
    tiny_bundle, tmp_path, monkeypatch
):
    """The nodes' own code; a fake TensorRT, since without a GPU a real node stops before that."""
    pytest.importorskip('rclpy')
    pytest.importorskip('onnxruntime')
    environment = {**os.environ, 'OOD_PERCEPTION_CACHE': str(tmp_path / 'cache')}
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    remember(load_bundle(tiny_bundle).sha256)  # a trial has no fake TensorRT
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', NODE, str(TEST), role, str(tiny_bundle)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for role in ('node', 'compile', 'node')
    ]  # fmt: skip

    outputs = [process.communicate(timeout=HANGS) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    builds = [int(out.split('builds ')[1]) for out, _ in outputs]
    assert sum(builds) == 1, outputs
