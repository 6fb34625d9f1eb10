# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Queries, keys and values of a block's attention, against transformers' own model."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from backbone_inputs import normalised, photo, tokens_of  # noqa: E402
from tiny_backbones import ARCHITECTURES, tiny_backbone  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.backbones.base import KINDS, layer_name, parse_layer  # noqa: E402
from trainer.export.onnx import to_onnx  # noqa: E402

PROJECTIONS = {
    'queries': ('q_proj', 'query'),
    'keys': ('k_proj', 'key'),
    'values': ('v_proj', 'value'),
}


def seen_by_transformers(backbone, image, block):
    """Run transformers' own model and keep what its projections give at the patches."""
    found, handles = {}, []
    for kind, names in PROJECTIONS.items():
        parts = backbone.blocks[block].named_modules()
        (layer,) = [module for name, module in parts if name.split('.')[-1] in names]
        handles.append(
            layer.register_forward_hook(lambda _, __, out, kind=kind: found.__setitem__(kind, out))
        )
    backbone.model(normalised(backbone, image))
    for handle in handles:
        handle.remove()
    first = backbone.prefix().shape[1]
    return {kind: value[:, first:].reshape(2, 4, 4, -1) for kind, value in found.items()}


@pytest.mark.parametrize('block', [0, 2])
@pytest.mark.parametrize('family', sorted(ARCHITECTURES))
def test_projections_are_those_of_the_model(family, block):
    backbone = tiny_backbone(family)
    image = photo(4 * backbone.patch, 4 * backbone.patch, 2)
    names = [f'{kind}_{block}' for kind in PROJECTIONS]
    actual = tokens_of(backbone, image, names)
    assert list(actual) == names
    for kind, expected in seen_by_transformers(backbone, image, block).items():
        torch.testing.assert_close(actual[f'{kind}_{block}'], expected, atol=1e-5, rtol=1e-5)


def test_kinds_come_in_the_order_asked_and_do_not_change_the_tokens():
    backbone = tiny_backbone()
    image = photo(28, 42)
    keys, tokens, early = backbone.baked(28, 42, ['keys_2', 2, 'values_0'])(image)
    alone = tokens_of(backbone, image, ['keys_2', 2, 'values_0'])
    for mixed, name in ((keys, 'keys_2'), (tokens, 'tokens_2'), (early, 'values_0')):
        torch.testing.assert_close(mixed, alone[name])
        torch.testing.assert_close(mixed, tokens_of(backbone, image, [name])[name])


def test_of_the_last_block_only_what_is_read_is_exported():
    pytest.importorskip('onnx')
    backbone, image = tiny_backbone(), photo(28, 42)
    sizes = {}
    for name in ('tokens_1', 'keys_2', 'tokens_2'):
        graph = to_onnx(backbone.baked(28, 42, [name]), (image,), ('image',), (name,)).graph
        sizes[name] = len(graph.node)
    assert sizes['tokens_1'] < sizes['keys_2'] + 3  # a norm and a product more, a norm less
    assert sizes['keys_2'] < sizes['tokens_2'] - 10


@pytest.mark.parametrize('family', sorted(ARCHITECTURES))
def test_exported_keys_equal_torch(family):
    runtime = pytest.importorskip('onnxruntime')
    backbone = tiny_backbone(family)
    image = photo(2 * backbone.patch, 3 * backbone.patch, 2)
    names = ('tokens_1', 'keys_2', 'values_1')
    baked = backbone.baked(2 * backbone.patch, 3 * backbone.patch, names)
    model = to_onnx(baked, (image,), ('image',), names)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    for actual, expected in zip(
        session.run(names, {'image': image.numpy()}), baked(image), strict=True
    ):
        np.testing.assert_allclose(actual, expected.numpy(), atol=2e-5)


def test_names_are_read_and_wrong_ones_refused():
    assert [parse_layer(x) for x in (11, 'tokens_11', 'keys_3')] == [
        ('tokens', 11),
        ('tokens', 11),
        ('keys', 3),
    ]
    assert layer_name(4) == 'tokens_4'
    for wrong in ('keys', 'key_3', 'keys_x', 'tokens_'):
        with pytest.raises(ConfigError, match=r'tokens_<block>.*values_<block>'):
            parse_layer(wrong)
    with pytest.raises(ConfigError, match='blocks 0 to 2'):
        tiny_backbone().baked(28, 28, ['keys_3'])
    assert len(KINDS) == 5
