# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the int8 ranges and costs of any bundle come from: its own images, its own ground."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch')
from paths import need_data

from ood_perception.bundle.store import load_bundle
from ood_perception.errors import ConfigError
from trainer.datasets import load_images
from trainer.datasets.pasted import read_ground
from trainer.export.int8.quantize import calibration_frames, validation_images


def test_objects_are_pasted_on_the_ground_of_the_bundle(tmp_path):
    root = need_data('maritime').parent
    need_data('outlier_objects')
    clean = load_images('maritime', root / 'maritime', 'val')
    water = load_bundle('water_default')
    given = (clean, root / 'outlier_objects')
    images = validation_images(*given, water.manifest.ground_classes, tmp_path, 2)
    assert len(images) == 2
    for index, name in enumerate(images.names):
        _, labels = images.read(index)
        _, classes = clean.read(clean.names.index(name))
        rows, _ = np.nonzero(labels == 1)
        foot = labels[rows.max()] == 1
        # an object's foot stood on water before it was pasted
        assert (classes[rows.max()][foot] == clean.classes.names.index('water')).mean() > 0.8
        ground = read_ground(images.labels[index])
        np.testing.assert_array_equal(ground, (classes == 1) | (labels == 1))
    with pytest.raises(ConfigError, match=r"\['Road'\]: choose with --ground among .*water, sky"):
        validation_images(*given, ('Road',), tmp_path, 2)


def test_ranges_are_measured_at_the_bundles_size():
    images = load_images('maritime', need_data('maritime'), 'train')
    frames = calibration_frames(load_bundle('water_default'), images, 3)
    assert [frame.shape for frame in frames] == [(378, 504, 3)] * 3
    assert len({frame.tobytes() for frame in frames}) == 3
