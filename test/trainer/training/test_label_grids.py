# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Maps at label size: torch's own bilinear interpolation is the oracle."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from trainer.features import FeatureSet  # noqa: E402
from trainer.training.label_grids import MapUpsampler  # noqa: E402


@pytest.mark.parametrize(
    ('factor', 'step', 'row', 'column'), [(1, 1, 0, 0), (1, 3, 2, 0), (4, 1, 0, 0), (4, 5, 3, 4)]
)
def test_every_step_th_pixel_of_the_bilinear_map(factor, step, row, column):
    labels = np.zeros((2, 42, 56), np.uint8)
    features = FeatureSet(('a', 'b'), {}, labels, 42, 56, 14, 'key')
    maps = torch.randn(2, 3 * factor, 4 * factor, 5)
    whole = torch.nn.functional.interpolate(
        maps.permute(0, 3, 1, 2), (42, 56), mode='bilinear', align_corners=False
    ).permute(0, 2, 3, 1)
    found = MapUpsampler(features, factor, step)(maps, row, column)
    expected = whole[:, row::step, column::step]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
