# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The convolutional hosts of RPL: published shapes and names, dilation, one training step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.backbones.base import BackboneChoice  # noqa: E402
from trainer.backbones.convolutional import ConvolutionalBackbone  # noqa: E402
from trainer.features import FeatureSet  # noqa: E402
from trainer.heads.rpl.block import deeplab_block  # noqa: E402
from trainer.heads.rpl.config import RplConfig  # noqa: E402
from trainer.heads.rpl.training import RplRun  # noqa: E402
from trainer.nets.deeplab import (  # noqa: E402
    DeepLabHost,
    DeepLabShape,
    PublishedHost,
)
from trainer.nets.segmenter import SegmenterConfig  # noqa: E402
from trainer.training.segmenter import SegmenterRun  # noqa: E402

NORM = ('weight', 'bias', 'running_mean', 'running_var')


def published_shapes(divisor=1, width=256, classes=19):
    """Tensor names and shapes of the published checkpoint, written down beside the network."""
    shapes = {'mod1.conv1.weight': (64 // divisor, 3, 3, 3)}
    plan = {2: (3, (128, 128)), 3: (3, (256, 256)), 4: (6, (512, 512)), 5: (3, (512, 1024))}
    plan |= {6: (1, (512, 1024, 2048)), 7: (1, (1024, 2048, 4096))}
    dim = 64
    for stage, (count, channels) in plan.items():
        for block in range(1, count + 1):
            place = f'mod{stage}.block{block}'
            kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
            widths = (dim, *channels)
            for index, kernel in enumerate(kernels):
                size = (widths[index + 1] // divisor, widths[index] // divisor, kernel, kernel)
                shapes[f'{place}.convs.conv{index + 1}.weight'] = size
                norm = 'bn1.0' if not index else f'convs.bn{index + 1}.0'
                for part in NORM:
                    shapes[f'{place}.{norm}.{part}'] = (widths[index] // divisor,)
            if dim != channels[-1]:
                shapes[f'{place}.proj_conv.weight'] = (
                    channels[-1] // divisor,
                    dim // divisor,
                    1,
                    1,
                )
            dim = channels[-1]
    parts = {'aspp.img_conv.': (4096 // divisor, 1), 'aspp.features.0.': (4096 // divisor, 1)}
    parts |= {f'aspp.features.{i}.': (4096 // divisor, 3) for i in (1, 2, 3)}
    parts |= {'final.0': (48 + width, 3), 'final.3': (width, 3)}
    for name, (inner, kernel) in parts.items():
        place, first = (name, 0) if name.endswith('.') else (name[:-1], int(name[-1]))
        conv, norm = f'{place}{first}', f'{place}{first + 1}'
        shapes[f'{conv}.weight'] = (width, inner, kernel, kernel)
        shapes |= {f'{norm}.{part}': (width,) for part in NORM}
    shapes['bot_aspp.weight'] = (width, 5 * width, 1, 1)
    shapes['bot_fine.weight'] = (48, 128 // divisor, 1, 1)
    shapes['final.6.weight'] = (classes, width, 1, 1)
    return {f'module.{name}': shape for name, shape in shapes.items()}


def random_state(shapes):
    """Random tensors that let an image through: positive gains, variances near those seen."""
    state = {}
    for name, shape in shapes.items():
        wide = int(np.prod(shape[1:])) or 1
        values = torch.randn(shape) * (2 / wide) ** 0.5
        gain = len(shape) == 1 and name.endswith(('weight', 'running_var'))
        state[name] = 1 + 0.1 * values.tanh() if gain else values * (0.1 if wide == 1 else 1)
    return state


def test_the_full_network_has_the_published_tensors_and_trains_30_89_million():
    shapes = published_shapes()
    with torch.device('meta'):
        network = PublishedHost()
        block, projector = deeplab_block(network.host), torch.nn.Conv2d(256, 304, 1)
        network.load_published({name: torch.empty(shape) for name, shape in shapes.items()})
    trained = sum(p.numel() for part in (block, projector) for p in part.parameters())
    assert round(trained / 1e6, 2) == 30.89
    assert network.host.trunk_width == 4096
    assert network.host.feature_width == 304
    whole = sum(p.numel() for p in network.parameters())
    expected = sum(int(np.prod(s)) for n, s in shapes.items() if 'running' not in n)
    assert whole == expected


@pytest.fixture(scope='module')
def narrow():
    torch.manual_seed(0)
    network = PublishedHost(classes=3, divisor=32, width=8)
    state = random_state(published_shapes(32, 8, 3))
    network.load_published(state)
    return network.eval(), state


def test_a_published_state_lands_where_its_names_say(narrow):
    network, state = narrow
    for theirs, ours in (
        ('mod4.block1.proj_conv.weight', network.trunk.stages[2][0].project.weight),
        ('mod7.block1.convs.conv3.weight', network.trunk.stages[5][0].convs[2].weight),
        ('mod7.block1.convs.bn3.0.running_var', network.trunk.stages[5][0].norms[2].running_var),
        ('mod2.block3.bn1.0.bias', network.trunk.stages[0][2].norms[0].bias),
        ('aspp.features.3.0.weight', network.host.aspp.branches[3][0].weight),
        ('aspp.img_conv.1.weight', network.host.aspp.pooled[1].weight),
        ('final.4.running_mean', network.host.classifier.layers[4].running_mean),
    ):
        assert torch.equal(state[f'module.{theirs}'], ours), theirs


def test_a_state_that_does_not_fit_is_refused_by_name(narrow):
    _, state = narrow
    network = PublishedHost(classes=3, divisor=32, width=8)
    name = 'module.bot_fine.weight'
    with pytest.raises(DataError, match=r'missing \[.host.project.weight.\]'):
        network.load_published({k: v for k, v in state.items() if k != name})
    with pytest.raises(DataError, match=r'host.project.weight is \(1,\), expected'):
        network.load_published({**state, name: torch.zeros(1)})
    with pytest.raises(DataError, match=r"unknown \['mod9'\]"):
        network.load_published({**state, 'mod9': torch.zeros(1)})


def test_strides_and_order_are_the_published(narrow):
    network, _ = narrow
    with torch.no_grad():
        fine, trunk = network.trunk(torch.randn(1, 3, 64, 96))
        feature = network.host.feature(fine, trunk)
        assert network(torch.randn(1, 3, 64, 96)).shape == (1, 32, 48, 3)
    assert fine.shape == (1, 32, 48, 4)
    assert trunk.shape == (1, 8, 12, 128)
    assert feature.shape == (1, 32, 48, 56)
    projected = network.host.project(fine.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(feature[..., :48], projected)  # the fine channels come first


def mapped(trunk, frames=3, size=64, patch=8, seed=0):
    """Maps of random images with an object in each."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (frames, size, size, 3), np.uint8)
    labels = np.zeros((frames, size, size), np.uint8)
    labels[:, :, size // 2 :] = 1
    labels[:, 16:40, 16:40] = OUTLIER
    images[labels == OUTLIER] = (20, 250, 20)
    with torch.no_grad():
        maps = trunk(torch.from_numpy(images))
    tokens = {n: m.half().numpy() for n, m in zip(('fine', 'trunk'), maps, strict=True)}
    names = tuple(str(i) for i in range(frames))
    return FeatureSet(names, tokens, labels, size, size, patch, f'maps {seed}')


RPL = RplConfig(
    steps=1, batch=2, select_every=1, pixel_step=2, samples=16, matmul='f32', context_batch=2
)


def test_one_training_step_on_the_published_shape_starts_from_its_aspp(narrow):
    network, _ = narrow

    def trunk(images):
        return network.trunk(images.float().permute(0, 3, 1, 2) / 128 - 1)

    train = mapped(trunk)
    block, start = deeplab_block(network.host), deeplab_block(network.host)
    torch.testing.assert_close(block.aspp.state_dict(), network.host.aspp.state_dict())
    config = replace(RPL, width=8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    done = RplRun(network.host, (train, train), train, config, block).fit()
    assert np.isfinite(done.history[0][1:]).all()
    moved = [
        not torch.equal(a, b) for a, b in zip(block.parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)  # every parameter of the block gets a gradient
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_host_is_trained_closed_set_and_carries_a_block():
    torch.manual_seed(0)
    backbone = ConvolutionalBackbone(BackboneChoice(name='mobilenet_v2'))
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.02, 0.1)
    train = mapped(backbone.baked(64, 64, ['maps_2', 16]), 4, patch=16)
    known = replace(train, labels=np.where(train.labels == OUTLIER, 255, train.labels))
    host = DeepLabHost(DeepLabShape(320, 24, 4, 2, 8, 6, (1, 2, 3)))
    config = SegmenterConfig(steps=6, batch=4, warmup=1, select_every=3, matmul='f32')
    done = SegmenterRun(known, known, host.layers, 2, config, host).fit()
    assert done.model is host
    assert np.isfinite(done.history).all()
    result = RplRun(
        host, (train, None), train, replace(RPL, width=8, contrast=False), deeplab_block(host)
    ).fit()
    assert np.isfinite(result.history[0][1:]).all()


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match='every size must be at least 1'):
        DeepLabShape(width=0)
