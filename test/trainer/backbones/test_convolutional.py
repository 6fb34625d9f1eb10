# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Convolutional backbones: published sizes, dilation, the packages' weights, a bundle of one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from backbone_inputs import photo, tokens_of  # noqa: E402
from convolutional_weights import convolutional  # noqa: E402
from miniature_recipes import miniature  # noqa: E402
from paths import need_data  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import BundleError, ConfigError, DataError  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.backbones import load_backbone  # noqa: E402
from trainer.backbones.base import BackboneChoice  # noqa: E402
from trainer.backbones.convolutional import NETWORKS  # noqa: E402
from trainer.backbones.onnx_weights import weights_map  # noqa: E402
from trainer.backbones.weights import content_sha256  # noqa: E402
from trainer.data.images import read_image  # noqa: E402
from trainer.export.onnx import to_onnx  # noqa: E402

__all__ = ['miniature']


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_mobilenet_dilates_behind_its_stride(stride):
    backbone = convolutional(stride=stride)
    maps = tokens_of(backbone, photo(64, 96), ['maps_2', 2, 16])
    grid = (64 // stride, 96 // stride)
    assert [tuple(one.shape) for one in maps.values()] == [
        (1, 16, 24, 24), (1, *grid, 24), (1, *grid, 320),
    ]  # fmt: skip
    assert [backbone.width(layer) for layer in ('maps_2', 2, 16)] == [24, 24, 320]
    count = sum(p.numel() for p in backbone.parameters())
    # 3.50 M published with 1.28 M of a classifier and 0.41 M + 2560 of the last 1x1
    assert count == 3_504_872 - 1_281_000 - (320 * 1280 + 2 * 1280)


def test_efficientnet_lite_has_the_published_size():
    count = sum(p.numel() for p in convolutional(name='efficientnet_lite0').parameters())
    # 4.65 M published with 1.28 M of a classifier and 0.41 M + 2560 of the last 1x1
    assert count == 4_652_008 - 1_281_000 - (320 * 1280 + 2 * 1280)


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_dilation_keeps_the_values_of_the_strided_network(name):
    """A dilated network holds the strided one's values at every second cell, but at the border."""
    strided, dilated = (convolutional(name=name, stride=stride) for stride in (32, 16))
    dilated.model.load_state_dict(strided.model.state_dict())
    image, last = photo(160, 160), strided.depth - 1
    coarse, fine = (tokens_of(one, image, [last])[f'tokens_{last}'] for one in (strided, dilated))
    torch.testing.assert_close(fine[:, ::2, ::2], coarse, rtol=1e-3, atol=1e-3)


def test_tokens_are_the_mean_of_the_map_over_a_patch():
    maps = tokens_of(convolutional(), photo(32, 48), ['maps_2', 2])
    mean = maps['maps_2'].reshape(1, 2, 4, 3, 4, 24).mean((2, 4))
    torch.testing.assert_close(maps['tokens_2'], mean)


def test_coarser_blocks_are_enlarged_to_a_finer_patch():
    strided, fine = convolutional(stride=32), convolutional(stride=32, patch=16)
    image = photo(96, 160)
    coarse = tokens_of(strided, image, [15])['tokens_15']
    maps = tokens_of(fine, image, ['maps_5', 12, 15])
    assert [tuple(one.shape[1:3]) for one in maps.values()] == [(12, 20), (6, 10), (6, 10)]
    mean = maps['tokens_15'].reshape(1, 3, 2, 5, 2, 160).mean((2, 4))
    torch.testing.assert_close(mean[:, 1:-1, 1:-1], smoothed(coarse), rtol=1e-3, atol=1e-3)
    odd = tokens_of(fine, photo(48, 160), ['tokens_15'])['tokens_15']
    assert tuple(odd.shape) == (1, 3, 10, 160)


def smoothed(cells):
    """Return the mean over an enlarged cell: of bilinear weights (1, 6, 1) / 8 each way."""
    for axis in (1, 2):
        size = cells.shape[axis] - 2
        parts = [cells.narrow(axis, start, size) for start in range(3)]
        cells = (parts[0] + 6 * parts[1] + parts[2]) / 8
    return cells


def test_impossible_requests_name_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match='stride 12: choose one of 8, 16, 32'):
        convolutional(stride=12)
    with pytest.raises(ConfigError, match='patch 32: choose one of'):
        convolutional(stride=16, patch=32)
    with pytest.raises(ConfigError, match='gives tokens, maps'):
        convolutional().baked(32, 32, ['keys_3'])
    with pytest.raises(ConfigError, match="'resnet': choose one of vit, mobilenet_v2"):
        BackboneChoice(name='resnet')
    path = tmp_path / 'other.safetensors'
    convolutional(path, 'efficientnet_lite0')
    with pytest.raises(DataError, match='holds no weights of mobilenet_v2-s16'):
        load_backbone(BackboneChoice(str(path), name='mobilenet_v2'))
    (tmp_path / 'x.pth').write_bytes(b'nonsense')
    with pytest.raises(DataError, match='no file of torch tensors'):
        load_backbone(BackboneChoice(str(tmp_path / 'x.pth'), name='mobilenet_v2'))


def loaded(name):
    try:
        return load_backbone(BackboneChoice(name=name, stride=32))
    except BundleError as error:
        pytest.skip(f'the package with backbone weights cannot be had: {error}')


@pytest.mark.weights
@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_the_packages_weights_meet_the_statistics_that_they_were_trained_with(name):
    """Right layers, colours and normalisation: ImageNet's running means are met by photographs."""
    folder, backbone = need_data('outlier_objects', 'images'), loaded(name)
    photographs = [
        cv2.resize(read_image(path), (224, 224)) for path in sorted(folder.glob('*.jpg'))[:6]
    ]
    found = []
    for module in backbone.modules():
        if isinstance(getattr(module, 'norm', None), torch.nn.BatchNorm2d):
            module.conv.register_forward_hook(
                lambda _, __, out, norm=module.norm: found.append(
                    np.corrcoef(out.mean((0, 2, 3)), norm.running_mean)[0, 1]
                )
            )
    tokens_of(backbone, torch.from_numpy(np.stack(photographs)), [backbone.depth - 1])
    assert np.median(found) > 0.9
    assert found[0] > 0.3  # -0.6 with red and blue in each other's place


@pytest.mark.weights
@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_the_kernels_of_an_exported_graph_lie_in_the_package(name):
    from onnx import numpy_helper

    backbone = loaded(name)
    size = (64, 64)
    image = torch.zeros((2, *size, 3), dtype=torch.uint8)
    graph = to_onnx(backbone.baked(*size, [3, 15]), (image,), ('image',), ('a', 'b')).graph
    kernels = [t for t in graph.initializer if len(t.dims) == 4 and len(t.raw_data) > 4096]
    large = {t.name: numpy_helper.to_array(t) for t in kernels}
    found = weights_map(Path(backbone.provenance['path']), large)
    assert len(large) > 30
    # of EfficientNet's file, kernels of several pixels lie in an order that no map can express
    odd = set() if name == 'mobilenet_v2' else {n for n in large if 'depthwise' in n}
    assert set(large) - set(found) == odd


@pytest.mark.parametrize('ship', [True, False])
@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_a_pixood_bundle_of_it_is_fitted_completed_and_run(miniature, name, ship):
    weights = miniature / f'{name}.safetensors'
    backbone = convolutional(weights, name)
    changes = [
        *(f'backbone.name={name}', f'backbone.weights={weights}', 'backbone.layers=[2, 10, 13]'),
        *('view.height=128', 'view.width=128', 'head.upsampling=3', f'bundle.ship_weights={ship}'),
    ]
    out = miniature / f'{name} {ship}'
    options = [word for change in changes for word in ('--set', change)]
    places = ['--out', str(out), '--cache', str(miniature / 'cache'), '--quiet']
    assert main(['train', str(miniature / 'recipe.yaml'), *places, *options]) == 0
    bundle = complete(load_bundle(out / 'bundle'), weights)
    manifest = bundle.manifest
    assert (manifest.input.patch, manifest.provenance['backbone']) == (16, backbone.name)
    state = {k: v.numpy() for k, v in load_file(weights).items() if 'num_batches' not in k}
    assert manifest.provenance['weights_sha256'] == content_sha256(state)
    for runtime in ('openvino', 'onnxruntime'):  # each is held against the golden vectors
        create_engine(bundle, EngineOptions(runtime, 'f32', 1)).close()
