# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The convolutional hosts of RPL: the published sizes, one training step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.backbones.base import BackboneChoice  # noqa: E402
from trainer.backbones.convolutional import ConvolutionalBackbone  # noqa: E402
from trainer.features import FeatureSet  # noqa: E402
from trainer.heads.rpl.block import deeplab_block  # noqa: E402
from trainer.heads.rpl.config import RplConfig  # noqa: E402
from trainer.heads.rpl.training import RplRun  # noqa: E402
from trainer.nets.deeplab import DeepLabHost, DeepLabShape  # noqa: E402
from trainer.nets.segmenter import SegmenterConfig  # noqa: E402
from trainer.training.segmenter import SegmenterRun  # noqa: E402


def test_a_block_of_the_published_size_trains_30_89_million():
    with torch.device('meta'):
        host = DeepLabHost(DeepLabShape())
        block, projector = deeplab_block(host), torch.nn.Conv2d(256, 304, 1)
    trained = sum(p.numel() for part in (block, projector) for p in part.parameters())
    assert round(trained / 1e6, 2) == 30.89
    assert host.trunk_width == 4096
    assert host.feature_width == 304


@pytest.fixture
def narrow():
    """A host of the published form, with a thirty-second of the channels of its trunk."""
    torch.manual_seed(0)
    return DeepLabHost(DeepLabShape(trunk=128, fine=4, classes=3, width=8)).eval()


def test_the_fine_channels_come_first_at_the_fine_map_s_size(narrow):
    fine, trunk = torch.randn(1, 32, 48, 4), torch.randn(1, 8, 12, 128)
    with torch.no_grad():
        feature = narrow.feature(fine, trunk)
        assert narrow(fine, trunk).shape == (1, 32, 48, 3)
        projected = narrow.project(fine.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert feature.shape == (1, 32, 48, 56)
    torch.testing.assert_close(feature[..., :48], projected)


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


def test_one_training_step_starts_from_the_host_s_aspp(narrow):
    project = torch.randn(3, 132)

    def trunk(images):
        values = images.float() / 128 - 1
        fine = torch.nn.functional.avg_pool2d(values.permute(0, 3, 1, 2), 2)
        coarse = torch.nn.functional.avg_pool2d(fine, 4)
        maps = [grid.permute(0, 2, 3, 1) @ project for grid in (fine, coarse)]
        return maps[0][..., :4], maps[1][..., 4:]

    train = mapped(trunk)
    block, start = deeplab_block(narrow), deeplab_block(narrow)
    torch.testing.assert_close(block.aspp.state_dict(), narrow.aspp.state_dict())
    config = replace(RPL, width=8)
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    done = RplRun(narrow, (train, train), train, config, block).fit()
    assert np.isfinite(done.history[0][1:]).all()
    moved = [
        not torch.equal(a, b) for a, b in zip(block.parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)  # every parameter of the block gets a gradient
    for name, value in narrow.state_dict().items():
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
