# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What heads are fitted on: which images calibrate, seen whole and in a crop; others' images."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import miniature  # noqa: E402

from trainer import features  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['miniature']
FAR = 'view.views=[{name: far, center_x: 0.5, center_y: 0.5, width: 0.5}]'
CALIBRATION = ('data.calibration=[train]', 'data.calibration_fraction=0.25')


def data_of(place, cache, *changes):
    recipe = load_recipe(place / 'recipe.yaml', [FAR, *CALIBRATION, *changes])
    return Workflow(recipe, place / 'unused', cache=cache).data


@pytest.fixture
def extracted(monkeypatch):
    """Return the list of batches, in images, that went through the backbone."""
    batches, forward = [], features.forward_tokens

    def counted(baked, images, precision):
        batches.append(len(images))
        return forward(baked, images, precision)

    monkeypatch.setattr(features, 'forward_tokens', counted)
    return batches


@pytest.mark.parametrize('spacing', [0, 5])
def test_of_a_crop_only_what_calibrates_is_extracted(miniature, tmp_path, extracted, spacing):
    data = data_of(miniature, tmp_path, f'data.calibration_spacing={spacing}')
    crop = data.cropped(data.view.views[0])
    found = crop.calibration_features()
    assert sum(extracted) == len(found.names) == (4 + 16 if spacing == 0 else 4)
    assert found.names == data.calibration_features().names, 'the images that the whole ones are'
    every = crop.features('train')
    for i, name in enumerate(found.names):
        place = every.names.index(name)
        assert found.geometries[i] == every.geometries[place]
        np.testing.assert_array_equal(found.labels[i], every.labels[place])
        for layer, tokens in found.tokens.items():
            np.testing.assert_array_equal(tokens[i], every.tokens[layer][place])
