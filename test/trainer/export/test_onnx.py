# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Exported stages against torch, in both CPU runtimes, within the contract's bounds."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
onnx = pytest.importorskip('onnx')
pytest.importorskip('transformers')
from pixood_models import some_model  # noqa: E402

from trainer.backbones.vit import build  # noqa: E402
from trainer.backbones.weight_names import Architecture  # noqa: E402
from trainer.export.onnx import export_stages, head_to_onnx  # noqa: E402
from trainer.heads.pixood.model import PixOODHead  # noqa: E402

SIZE = (56, 84)


def tiny_backbone(seed=0):
    torch.manual_seed(seed)
    architecture = Architecture('dinov2', 32, 3, 14, 128, 0, 5)
    return build(architecture).baked(*SIZE, (1, 2))


def images(count=2, seed=4):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def run_onnxruntime(folder, image, chosen):
    onnxruntime = pytest.importorskip('onnxruntime')
    values = {'image': image, 'in_distribution': chosen}
    for name in ('backbone', 'head'):
        session = onnxruntime.InferenceSession(
            str(folder / f'{name}.onnx'), providers=['CPUExecutionProvider']
        )
        names = [output.name for output in session.get_outputs()]
        feed = {value.name: values[value.name] for value in session.get_inputs()}
        values |= dict(zip(names, session.run(names, feed), strict=True))
    return values


def run_openvino(folder, image, chosen, precision='f32'):
    openvino = pytest.importorskip('openvino')
    core = openvino.Core()
    values = {'image': image, 'in_distribution': chosen}
    for name in ('backbone', 'head'):
        hint = precision if name == 'backbone' else 'f32'
        model = core.read_model(folder / f'{name}.onnx')
        compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': hint})
        feed = {
            name: values[name] for port in compiled.inputs for name in port.names & set(values)
        }
        for port, value in compiled(feed).items():
            values[port.any_name] = value
    return values


RUNTIMES = {'onnxruntime': run_onnxruntime, 'openvino': run_openvino}


def assert_parity(surprisal, truth):
    """DESIGN: |difference| <= 0.01 up to 6 (relative above), |difference of score| <= 1e-4."""
    gap = np.abs(surprisal - truth)
    assert gap[truth <= 6].max() <= 0.01
    assert (gap / np.maximum(truth, 6)).max() <= 0.01
    assert np.abs(10.0**-surprisal - 10.0**-truth).max() <= 1e-4


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Return (folder, backbone, head, stages) of one export."""
    folder = tmp_path_factory.mktemp('stages')
    backbone, head = tiny_backbone(), PixOODHead(some_model(), 7, half_weights=True)
    return folder, backbone, head, export_stages(backbone, head, folder, SIZE)


@pytest.mark.parametrize('runtime', sorted(RUNTIMES))
@pytest.mark.parametrize('count', [1, 3])
def test_the_stages_agree_with_torch(exported, runtime, count):
    folder, backbone, head, _ = exported
    image, chosen = images(count), np.array([1, 0, 1], np.float32)

    got = RUNTIMES[runtime](folder, image, chosen)

    with torch.no_grad():
        truth, labels = head(*backbone(torch.from_numpy(image)), torch.from_numpy(chosen))
    assert got['surprisal'].shape == (count, 28, 42)
    assert got['labels'].dtype == np.uint8
    assert_parity(got['surprisal'], truth.numpy())
    assert (got['labels'] == labels.numpy()).mean() > 0.999


@pytest.mark.parametrize(
    'options',
    [
        {'selection': 'unified'},
        {'selection': 'gated'},
        {'selection': 'gated', 'calibration': 'paper'},
        {'calibration': 'paper', 'logits': 'features'},
        {'classes': ('sky', 'road')},
        {'upsampling': 1},
        {'upsampling': 2},
    ],
)
def test_every_form_of_the_head_agrees_with_torch(options, tmp_path):
    backbone, head = tiny_backbone(), PixOODHead(some_model(), **({'upsampling': 3} | options))
    export_stages(backbone, head, tmp_path, SIZE, weights='f32')
    image, chosen = images(), np.ones(len(head.compiled_classes), np.float32)

    with torch.no_grad():
        truth = head(*backbone(torch.from_numpy(image)), torch.from_numpy(chosen))[0].numpy()

    for run in RUNTIMES.values():
        assert_parity(run(tmp_path, image, chosen)['surprisal'], truth)


def test_the_graphs_keep_the_contract(exported):
    folder, _, _, result = exported
    body, head = (
        onnx.load(folder / f'{n}.onnx', load_external_data=False) for n in ('backbone', 'head')
    )
    backbone_stage, head_stage = result.stages

    assert [value.name for value in body.graph.input] == ['image']
    first = [node for node in body.graph.node if 'image' in node.input]
    assert {node.op_type for node in first} <= {'Cast', 'Shape'}
    assert tuple(value.name for value in head.graph.input) == head_stage.inputs
    assert tuple(value.name for value in head.graph.output) == ('surprisal', 'labels')
    assert tuple(value.name for value in body.graph.output) == backbone_stage.outputs
    produced = {name for node in head.graph.node for name in node.output}
    assert {'surprisal_of_0', 'surprisal_of_1', 'surprisal_of_2'} <= produced
    assert body.opset_import[0].version == head.opset_import[0].version == 18
    assert not any(i.name.startswith('onnx::') for i in [*body.graph.initializer])


def test_a_class_of_the_head_can_be_cut_out(exported):
    """The sub-graph of one class holds that class's etalons and no other's."""
    folder, _, head, _ = exported
    model = onnx.load(folder / 'head.onnx')

    part = onnx.utils.Extractor(model).extract_model(list(head.layers), ['surprisal_of_1'])

    def banks(graph):
        return {name.split('.offsets')[0] for name in names(graph) if '.offsets.' in name}

    def names(graph):
        return [initializer.name for initializer in graph.initializer]

    assert banks(model.graph) == {f'head.distances.banks.{place}' for place in (0, 1, 2)}
    assert banks(part.graph) == {'head.distances.banks.1'}


def test_half_stored_weights_halve_the_file_and_change_nothing(tmp_path):
    backbone, head = (
        tiny_backbone(),
        PixOODHead(some_model(counts=(300, 300, 300)), 2, half_weights=True),
    )
    for weights in ('f16', 'f32'):
        export_stages(backbone, head, tmp_path / weights, SIZE, weights)
    image, chosen = images(), np.ones(3, np.float32)

    half, whole = (run_onnxruntime(tmp_path / w, image, chosen) for w in ('f16', 'f32'))

    np.testing.assert_array_equal(half['surprisal'], whole['surprisal'])
    size = {w: (tmp_path / w / 'head.onnx').stat().st_size for w in ('f16', 'f32')}
    assert size['f16'] < 0.75 * size['f32']


def test_the_same_modules_give_the_same_bytes(exported, tmp_path):
    folder = exported[0]
    export_stages(tiny_backbone(), PixOODHead(some_model(), 7, half_weights=True), tmp_path, SIZE)

    for name in ('backbone.onnx', 'backbone.data', 'head.onnx'):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_weights_lie_where_the_stages_say(exported):
    folder, _, _, result = exported
    data = (folder / 'backbone.data').read_bytes()

    assert len(result.external) > 10
    for name, offset, values in result.external:
        assert offset % 64 == 0
        assert data[offset : offset + values.nbytes] == values.tobytes(), name


def test_bf16_is_for_the_backbone_only(exported):
    """Its surprisal keeps the float32 head's resolution (the trap: one bf16 graph, 42 values)."""
    folder = exported[0]
    image, chosen = images(), np.ones(3, np.float32)

    single = run_openvino(folder, image, chosen)['surprisal']
    half = run_openvino(folder, image, chosen, 'bf16')['surprisal']

    assert len(np.unique(half)) >= 0.95 * len(np.unique(single))


def test_an_input_that_no_node_reads_is_still_declared():
    head = PixOODHead(some_model(), 2, selection='unified')
    model = head_to_onnx(head, [torch.zeros(2, 4, 6, 32)] * 2)

    assert [value.name for value in model.graph.input] == [*head.layers, 'in_distribution']
