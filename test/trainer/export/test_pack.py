# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Packed bundles: whole, checked, completed from their weights' origin, and the same twice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.manifest import ClassSpec, InputSpec, Manifest
from ood_perception.bundle.store import load_bundle
from ood_perception.engines.trial import is_known
from ood_perception.errors import BundleError, ConfigError

torch = pytest.importorskip('torch')
pytest.importorskip('onnx')
pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.torch')
from pixood_models import CLASSES, some_model  # noqa: E402

from trainer.artifacts import write_npz  # noqa: E402
from trainer.backbones import load_backbone  # noqa: E402
from trainer.backbones.base import BackboneChoice  # noqa: E402
from trainer.backbones.vit import build  # noqa: E402
from trainer.backbones.weight_names import Architecture  # noqa: E402
from trainer.export.golden import golden_vectors  # noqa: E402
from trainer.export.pack import BundleParts, pack_bundle  # noqa: E402
from trainer.heads.pixood.model import PixOODHead  # noqa: E402

SIZE = (56, 84)
STATED = Manifest(
    name='tiny',
    input=InputSpec(*SIZE, 14),
    stages=(),
    heads=(),
    files={},
    classes=tuple(ClassSpec(name, (0, 0, 0), name != 'pole') for name in CLASSES),
    in_distribution=('road', 'pavement'),
    ground_classes=('road',),
    calibration={'pixels': {'road': 1000}},
    provenance={'revision': 'abc', 'command': 'trainer pack'},
    licences=('Data: none.',),
)


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    """A random backbone whose weights come from a file, as real ones do."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    source = build(Architecture('dinov2', 32, 3, 14, 128, 0, 5)).model
    safetensors.save_file(source.state_dict(), folder / 'tiny.safetensors')
    return load_backbone(BackboneChoice(str(folder / 'tiny.safetensors')), folder)


def images(seed=4):
    return np.random.default_rng(seed).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def pack(path, backbone, overwrite=False, **options):
    head = PixOODHead(some_model(), 2, half_weights=True)
    parts = BundleParts(backbone, head, images(), STATED, 'Random numbers.', **options)
    return pack_bundle(path, parts, overwrite)


@pytest.fixture(scope='module')
def packed(backbone, tmp_path_factory):
    """Return the path of a bundle without backbone weights."""
    path = tmp_path_factory.mktemp('bundles') / 'tiny'
    pack(path, backbone)
    return path


def test_it_loads_and_lacks_only_the_weights(packed):
    bundle = load_bundle(packed)

    assert [stage.external_data for stage in bundle.missing_weights] == ['backbone.data']
    assert {path.name for path in packed.iterdir()} == {*bundle.manifest.files, 'manifest.json'}
    assert bundle.manifest.heads[0].compiled_classes == ('road', 'pavement', 'sky')
    assert not (packed / 'backbone.data').exists()


def test_it_keeps_the_rules_of_graphs_and_needs_no_trial_here(packed):
    bundle = load_bundle(packed)

    check_graphs(bundle)
    assert is_known(bundle, 'openvino')


def test_the_map_rebuilds_the_weights_from_their_origin(packed, backbone, tmp_path):
    mapping = json.loads((packed / 'weights.map.json').read_text())
    pack(tmp_path / 'whole', backbone, ship_weights=True)
    origin = Path(backbone.provenance['path']).read_bytes()

    data = bytearray(mapping['target']['size'])
    for tensor in mapping['tensors']:
        shape = tensor['source_shape']
        values = np.frombuffer(origin, '<f4', int(np.prod(shape)), tensor['source_offset'])
        values = values.reshape(shape).T if tensor['transpose'] else values.reshape(shape)
        assert list(values.shape) == tensor['shape']
        data[tensor['offset'] : tensor['offset'] + values.nbytes] = values.tobytes()

    assert hashlib.sha256(origin).hexdigest() == mapping['origin']['sha256']
    assert hashlib.sha256(data).hexdigest() == mapping['target']['sha256']


def test_without_the_map_the_graph_holds_little(packed):
    size = {path.name: path.stat().st_size for path in packed.iterdir()}
    mapping = json.loads((packed / 'weights.map.json').read_text())

    assert size['backbone.onnx'] < 0.6 * mapping['target']['size']


def test_shipped_weights_are_checked_like_every_file(backbone, tmp_path):
    manifest = pack(tmp_path / 'whole', backbone, ship_weights=True)

    assert 'backbone.data' in manifest.files
    assert not load_bundle(tmp_path / 'whole').missing_weights


def test_the_same_inputs_give_the_same_bytes(packed, backbone, tmp_path):
    pack(tmp_path / 'again', backbone)

    for path in packed.iterdir():
        assert (tmp_path / 'again' / path.name).read_bytes() == path.read_bytes(), path.name


def test_nothing_of_this_machine_is_in_the_text(packed, backbone):
    place = str(backbone.provenance['path'])

    for name in ('manifest.json', 'weights.map.json', 'MODEL_CARD.md'):
        assert place.rsplit('/', 1)[0] not in (packed / name).read_text()


def test_the_card_says_what_a_user_must_know(packed):
    card = (packed / 'MODEL_CARD.md').read_text()

    for part in ('# tiny', 'patent pending', 'Data: none.', 'Random numbers.'):
        assert part in card
    assert 'too few patches): pole' in card


def test_golden_vectors_are_what_torch_answers(packed, backbone):
    head = PixOODHead(some_model(), 2, half_weights=True)
    baked = backbone.baked(*SIZE, (1, 2))
    golden = np.load(packed / 'golden.npz')

    truth = golden_vectors(baked, head, images(), ('road', 'pavement'))

    np.testing.assert_array_equal(golden['in_distribution'], [1, 1, 0])
    for name, values in truth.items():
        np.testing.assert_array_equal(golden[name], values)


def test_a_bundle_is_replaced_only_when_asked(packed, backbone, tmp_path):
    (tmp_path / 'mine').mkdir()

    with pytest.raises(BundleError, match='exists'):
        pack(packed, backbone)
    with pytest.raises(BundleError, match='which only a bundle is'):
        pack(tmp_path / 'mine', backbone, overwrite=True)
    pack(packed, backbone, overwrite=True)


def test_a_failure_leaves_nothing_behind(backbone, tmp_path):
    head = PixOODHead(some_model(), 2)
    wrong = images()[:1]

    with pytest.raises(ConfigError, match='golden images'):
        pack_bundle(tmp_path / 'broken', BundleParts(backbone, head, wrong, STATED, ''))

    assert list(tmp_path.iterdir()) == []


def test_random_weights_cannot_be_completed(tmp_path):
    random = build(Architecture('dinov2', 32, 3, 14, 128, 0, 5))

    with pytest.raises(BundleError, match='ship_weights'):
        pack(tmp_path / 'random', random)


def test_npz_bytes_depend_on_the_arrays_alone(tmp_path):
    arrays = {'a': np.arange(5), 'b': np.ones((2, 3), np.float32)}
    for name in ('first', 'second'):
        write_npz(tmp_path / name, arrays)

    assert (tmp_path / 'first').read_bytes() == (tmp_path / 'second').read_bytes()
    assert np.load(tmp_path / 'first')['b'].shape == (2, 3)


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_every_engine_reproduces_the_golden_vectors(
    packed, backbone, runtime, monkeypatch, tmp_path
):
    pytest.importorskip(runtime)
    completion = pytest.importorskip('ood_perception.bundle.weights.completion')
    engines = pytest.importorskip('ood_perception.engines')
    if not hasattr(engines, 'create_engine'):
        pytest.skip('this checkout has no engines')
    from ood_perception.engines.base import EngineOptions

    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path))
    bundle = completion.complete(load_bundle(packed), backbone.provenance['path'])

    with engines.create_engine(bundle, EngineOptions(runtime, 'f32')) as engine:
        output = engine.run(images(), engine.class_vector(['road', 'pavement']))

    golden = np.load(packed / 'golden.npz')
    assert np.abs(output.surprisal - golden['surprisal']).max() <= 0.01
