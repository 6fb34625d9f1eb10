# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The execute path of TensorRT, which no library here can run: on a fake with the real interface.

fake_tensorrt.py holds every version to the members that its bindings have, and runs the very
graph that would be built, so golden check, batches and class choice are real.
"""

import dataclasses
import logging
import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from fake_tensorrt import VERSIONS, FakeCuda, fake_tensorrt
from tensorrt_facts import skip_where_a_gpu_is

pytest.importorskip('onnxruntime')

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_checked_engine, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.tensorrt import engine as tensorrt
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.errors import EngineError

RGB = (56, 84, 3)


@pytest.fixture(params=VERSIONS)
def machine(request, monkeypatch, tmp_path):
    """Return (TensorRt, cuda): a fake GPU machine with an empty cache."""
    return make_machine(monkeypatch, tmp_path, request.param)


def make_machine(monkeypatch, tmp_path, version='11.4', **options):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    cuda = FakeCuda()
    trt = fake_tensorrt(version, cuda, **options)
    monkeypatch.setattr(tensorrt, 'load_tensorrt', lambda: trt)
    monkeypatch.setattr(tensorrt, 'load_cuda', lambda: cuda)
    return trt, cuda


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def options(precision='f32', **values):
    return EngineOptions('tensorrt', precision, 1, **values)


def noise(batch, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (batch, *RGB), dtype=np.uint8)


def cpu(bundle, images, classes):
    with create_engine(bundle, EngineOptions('onnxruntime', 'f32', 1)) as engine:
        output = engine.run(images, engine.class_vector(classes))
    return output.surprisal, output.labels


@pytest.mark.parametrize('precision', ['f32', 'fp16'])
def test_it_gives_what_the_cpu_gives(machine, bundle, precision):
    engine, report = create_checked_engine(bundle, options(precision, max_batch=3))
    with engine:
        output = engine.run(noise(3), engine.class_vector(['Road', 'Sky']))

    surprisal, labels = cpu(bundle, noise(3), ['Road', 'Sky'])
    bound = 1e-3 if precision == 'f32' else 0.05
    np.testing.assert_allclose(output.surprisal, surprisal, atol=bound, rtol=bound)
    assert (output.labels == labels).mean() > 0.98
    assert report.rank_correlation > 0.999
    assert engine.description['precision'] == precision
    assert machine[0].version in engine.description['version']


def test_every_batch_of_1_to_the_cameras_and_beyond(machine, bundle):
    with create_engine(bundle, options(max_batch=3)) as engine:
        vector = engine.class_vector(['Road'])
        expected = np.stack(
            [engine.run(noise(8)[i : i + 1], vector).surprisal[0] for i in range(8)]
        )
        for batch in (1, 3, 2, 2, 2, 8, 1, 1, 5):
            output = engine.run(noise(8)[:batch], vector)
            np.testing.assert_array_equal(output.surprisal, expected[:batch])


def test_a_fixed_shape_is_replayed_as_a_graph_with_new_images(machine, bundle):
    cuda = machine[1]
    with create_engine(bundle, options(max_batch=2)) as engine:
        vector = engine.class_vector(['Road'])
        engine.run(noise(2), vector)
        cuda.log.clear()
        outputs = [engine.run(noise(2, seed), vector) for seed in range(5)]
        assert cuda.log == ['captured'] + ['launched'] * 5
        engine.run(noise(1), vector)  # another shape: the recording is dropped
        assert not cuda.graphs

    for seed, output in enumerate(outputs):
        np.testing.assert_allclose(
            output.surprisal, cpu(bundle, noise(2, seed), ['Road'])[0], atol=1e-3
        )


def test_an_output_is_not_overwritten_by_the_next_run(machine, bundle):
    with create_engine(bundle, options()) as engine:
        vector = engine.class_vector(['Road'])
        first = engine.run(noise(1, 1), vector)
        kept = first.surprisal.copy(), first.labels.copy()
        for seed in range(2, 5):
            engine.run(noise(1, seed), vector)

    np.testing.assert_array_equal(first.surprisal, kept[0])
    np.testing.assert_array_equal(first.labels, kept[1])


def test_everything_is_released(machine, bundle):
    engine = create_engine(bundle, options(max_batch=2))
    vector = engine.class_vector(['Road'])
    for _ in range(3):
        engine.run(noise(2), vector)
    engine.close()
    engine.close()

    assert machine[1].leaks == []
    with pytest.raises(EngineError, match='was closed'):
        engine.run(noise(1), vector)


def test_a_refused_engine_releases_everything(monkeypatch, tmp_path, bundle):
    _, cuda = make_machine(monkeypatch, tmp_path, refuse='Engine built with another version')

    with pytest.raises(EngineError, match=r'Engine built with another version.*build it here'):
        create_engine(bundle, options())

    assert cuda.leaks == []


def test_a_device_error_costs_the_frame_and_not_the_engine(machine, bundle):
    with create_engine(bundle, options()) as engine:
        vector = engine.class_vector(['Road'])
        expected = engine.run(noise(1), vector).surprisal
        machine[1].fail = 'cudaStreamSynchronize failed: an illegal address'
        with pytest.raises(EngineError, match='illegal address'):
            engine.run(noise(1), vector)
        machine[1].fail = ''
        np.testing.assert_array_equal(engine.run(noise(1), vector).surprisal, expected)


def test_the_second_start_builds_nothing(machine, bundle):
    trt, _ = machine
    create_engine(bundle, options()).close()
    create_engine(bundle, options()).close()
    assert trt.module.builds == 1

    create_engine(bundle, options(max_batch=2)).close()
    create_engine(bundle, options('fp16')).close()
    assert trt.module.builds == 3


def test_another_gpu_or_version_is_not_served_the_same_engine(monkeypatch, tmp_path, bundle):
    trt, cuda = make_machine(monkeypatch, tmp_path)
    create_engine(bundle, options()).close()
    cuda.capability = '8.6'
    create_engine(bundle, options()).close()
    assert trt.module.builds == 2
    newer = dataclasses.replace(trt, version='11.5')
    monkeypatch.setattr(tensorrt, 'load_tensorrt', lambda: newer)
    create_engine(bundle, options()).close()
    assert trt.module.builds == 3


def test_a_missing_engine_may_be_an_error(machine, bundle):
    with pytest.raises(EngineError, match=r'no TensorRT engine .* on compute capability 8\.9'):
        create_engine(bundle, options(build=False))
    create_engine(bundle, options()).close()
    create_engine(bundle, options(build=False)).close()


@pytest.mark.parametrize('flag', ['version_compatible', 'hardware_compatible'])
def test_a_compatible_engine_is_found_by_later_versions_and_cards(
    monkeypatch, tmp_path, bundle, flag
):
    from ood_perception.engines.plan import plan_for
    from ood_perception.engines.tensorrt.engine_cache import Request, obtain_engine
    from ood_perception.engines.tensorrt.module import BuildOptions

    trt, cuda = make_machine(monkeypatch, tmp_path)
    request = Request(
        bundle, plan_for(bundle, options()), 'f32', '8.9', BuildOptions(**{flag: True})
    )
    assert obtain_engine(trt, request).built
    config = trt.module.configs[-1]
    if flag == 'version_compatible':
        assert 'VERSION_COMPATIBLE' in config._flags
        other = dataclasses.replace(trt, version='11.9')
        monkeypatch.setattr(tensorrt, 'load_tensorrt', lambda: other)
    else:
        assert config.hardware_compatibility_level.name == 'AMPERE_PLUS'
        cuda.capability = '12.0'

    create_engine(bundle, options(build=False)).close()

    assert trt.module.builds == 1
    brings_code = [r for r in trt.module.runtimes if r.__dict__.get('engine_host_code_allowed')]
    assert len(brings_code) == (1 if flag == 'version_compatible' else 0)


def test_float32_is_float32_and_batches_have_a_profile(machine, bundle):
    trt, _ = machine
    create_engine(bundle, options(max_batch=4)).close()

    config = trt.module.configs[-1]
    assert config._flags == ['no TF32']
    least, usual, largest = config._profiles[0]._shapes['image']
    assert (least, usual, largest) == ((1, *RGB), (4, *RGB), (4, *RGB))


def test_measured_kernels_are_kept_for_the_next_build(monkeypatch, tmp_path, bundle):
    make_machine(monkeypatch, tmp_path)
    create_engine(bundle, options()).close()
    kept = list((tmp_path / 'cache' / 'compiled').glob('timing-tensorrt-11.4-8.9.cache'))
    assert [file.read_bytes() for file in kept] == [b'measured']
    kept[0].write_bytes(b'broken')
    create_engine(bundle, options('fp16')).close()  # a broken one only costs time
    assert kept[0].read_bytes() == b'measured'


def test_compiled_kernels_of_rtx_are_kept(monkeypatch, tmp_path, bundle):
    make_machine(monkeypatch, tmp_path, 'rtx-1.7')
    create_engine(bundle, options()).close()

    kept = list((tmp_path / 'cache' / 'compiled').glob('*.kernels'))
    assert [file.read_bytes() for file in kept] == [b'kernels']


@pytest.mark.parametrize('what', ['engine', 'sidecar'])
def test_a_flipped_byte_is_found_named_and_built_again(machine, bundle, caplog, tmp_path, what):
    trt, _ = machine
    create_engine(bundle, options()).close()
    folder = tmp_path / 'cache' / 'compiled'
    suffix = {'engine': '*.blob', 'sidecar': '*.json'}[what]
    file = next(folder.glob(suffix))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with caplog.at_level(logging.WARNING):
        create_engine(bundle, options()).close()

    assert str(file) in caplog.text
    assert 'is damaged' in caplog.text
    assert trt.module.builds == 2
    caplog.clear()
    create_engine(bundle, options()).close()
    assert trt.module.builds == 2
    assert 'damaged' not in caplog.text


def damage_channels(name, model):
    from damaged_bundles import swap_channels

    swap_channels(name, model)


def norm_in_half(name, model):
    """Sums clipped to what fp16 holds, as in a norm that a runtime computes in fp16."""
    import onnx

    if name != 'backbone':
        return
    graph = model.graph
    last = graph.node[-1]
    target = last.output[0]
    last.output[0] = 'exact'
    values = {'scale': 5e4, 'low': -65504, 'high': 65504}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.float32(value), name) for name, value in values.items()
    )
    make = onnx.helper.make_node
    graph.node.extend([
        make('Mul', ['exact', 'scale'], ['large']),
        make('Clip', ['large', 'low', 'high'], ['clipped']),
        make('Div', ['clipped', 'scale'], [target]),
    ])  # fmt: skip


@pytest.mark.parametrize('change', [damage_channels, norm_in_half])
def test_a_damaged_graph_is_refused_by_the_golden_check(machine, tmp_path, change):
    from damaged_bundles import damaged

    bundle = damaged(tmp_path, change)

    with pytest.raises(EngineError, match='misses the golden vectors of bundle tiny'):
        create_engine(bundle, options('fp16'))

    assert machine[1].leaks == []


def test_the_bundles_int8_is_near_and_checked(machine, tmp_path):
    from quantized_bundles import write_quantized_bundle

    bundle = load_bundle(write_quantized_bundle(tmp_path / 'tiny'))

    with create_engine(bundle, options('int8')) as engine:
        output = engine.run(noise(1), engine.class_vector(['Road']))
        assert engine.description['precision'] == 'int8'

    surprisal, _ = cpu(bundle, noise(1), ['Road'])
    difference = np.abs(output.surprisal - surprisal)
    assert 0 < np.quantile(difference, 0.99) < 0.5


def test_auto_takes_float32_where_fp16_is_broken(machine, bundle, monkeypatch, caplog):
    """As TensorRT 10.3 did it: one class everywhere, and not a word."""
    from ood_perception.engines.tensorrt import graph as trt_graph

    with create_engine(bundle, options('auto')) as engine:
        assert engine.description['precision'] == 'fp16'
    for file in Path(os.environ['OOD_PERCEPTION_CACHE']).glob('compiled/*.json'):
        file.unlink()

    def broken(model, kind):
        damage_channels('backbone', model)
        return model

    monkeypatch.setattr(trt_graph, 'to_half', broken)
    with caplog.at_level(logging.WARNING), create_engine(bundle, options('auto')) as engine:
        assert engine.description['precision'] == 'f32'
        assert engine.choice == 'f32, since fp16 missed the golden vectors on this machine'

    assert 'precision fp16 is not used: ' in caplog.text
    assert machine[1].leaks == []


def test_a_new_class_set_is_an_engine_of_its_own_beside_the_old_one(machine, bundle):
    """The node swaps engines under a running one: two contexts live at once."""
    with create_engine(bundle, options(compiled_classes=('Road',))) as first:
        before = first.run(noise(1), first.class_vector(['Road'])).surprisal
        with create_engine(bundle, options(compiled_classes=('Road', 'Sky'))) as second:
            both = second.run(noise(1), second.class_vector(['Road'])).surprisal
            again = first.run(noise(1), first.class_vector(['Road'])).surprisal

    np.testing.assert_array_equal(again, before)
    np.testing.assert_allclose(both, before, atol=1e-4)
    assert machine[1].leaks == []


def test_classes_are_cut_and_checked_against_the_whole_head(machine, bundle):
    with create_engine(bundle, options(compiled_classes=('Sky',))) as engine:
        assert engine.compiled_classes == ('Sky',)
        output = engine.run(noise(1), engine.class_vector(['Sky']))

    np.testing.assert_allclose(output.surprisal, cpu(bundle, noise(1), ['Sky'])[0], atol=1e-3)


def test_a_free_input_size_is_refused(tmp_path):
    from ood_perception.engines.plan import plan_for
    from ood_perception.engines.tensorrt.build import build_engine
    from ood_perception.engines.tensorrt.graph import fused_model, write_model
    from ood_perception.engines.tensorrt.module import BuildOptions

    bundle = load_bundle(write_tiny_bundle(tmp_path / 'tiny'))
    model = fused_model(plan_for(bundle, EngineOptions()), 'f32')
    trt = fake_tensorrt('11.4', FakeCuda())
    build_engine(write_model(deepcopy(model), tmp_path), BuildOptions(2), tensorrt=trt)
    shapes = trt.module.configs[-1]._profiles[0]._shapes['image']
    assert shapes == ((1, 56, 84, 3), (2, 56, 84, 3), (2, 56, 84, 3))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = 'h'
    with pytest.raises(EngineError, match=r'image .*free shape .*pack the bundle again'):
        build_engine(write_model(model, tmp_path), BuildOptions(), tensorrt=trt)


@pytest.mark.parametrize('version', ['10.3', '11.4'])
def test_full_tensorrt_builds_for_its_own_gpu_alone(version, tmp_path):
    from ood_perception.engines.tensorrt.build import build_engine
    from ood_perception.engines.tensorrt.module import BuildOptions

    with pytest.raises(EngineError, match='builds for the GPU of this machine alone'):
        build_engine(
            tmp_path / 'model.onnx',
            BuildOptions(compute_capability='8.7'),
            tensorrt=fake_tensorrt(version, FakeCuda()),
        )


def test_real_cuda_python_says_what_is_missing():
    pytest.importorskip('cuda.bindings')
    skip_where_a_gpu_is()
    cuda = load_cuda()

    with pytest.raises(EngineError, match=r'no usable NVIDIA driver: cudaGetDeviceCount .*error'):
        require_gpu(cuda)
    array = np.zeros(8, np.uint8)
    calls = [
        (cuda.create_stream,), (cuda.destroy_stream, 1), (cuda.synchronize, 1),
        (cuda.allocate, 8), (cuda.free, 4096), (cuda.allocate_host, 8), (cuda.free_host, array),
        (cuda.to_device, 4096, array, 1), (cuda.to_host, array, 4096, 1),
        (cuda.begin_capture, 1), (cuda.end_capture, 1), (cuda.device,),
    ]  # fmt: skip
    for function, *arguments in calls:  # real calls: a wrong argument would be a TypeError
        with pytest.raises(EngineError, match=r'cuda\w+ failed: .*CUDA error \d+'):
            function(*arguments)


def test_a_machine_without_gpus_is_told_apart_from_one_without_driver():
    cuda = FakeCuda()
    cuda.device_count = lambda: 0
    with pytest.raises(EngineError, match='no NVIDIA GPU is visible: see CUDA_VISIBLE_DEVICES'):
        require_gpu(cuda)
