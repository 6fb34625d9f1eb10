# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped boat's bundle: small, free of anybody's images, and sensible on the sea."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.demo.sources import SEA
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import OodPerceptionError
from ood_perception.image.geometry import labels_to_grid
from ood_perception.image.image_files import read_image, read_label
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.calibration import read_samples
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.types import Frame

OBSTACLE, WATER, SKY, NOISE = range(4)


@pytest.fixture(scope='module')
def bundle():
    return load_bundle('water_default')


@pytest.fixture(scope='module')
def golden(bundle):
    with np.load(bundle.path('golden.npz')) as arrays:
        return dict(arrays)


def test_it_is_small_and_knows_three_classes(bundle):
    assert sum(path.stat().st_size for path in bundle.root.iterdir()) < 4 << 20
    manifest = bundle.manifest
    assert [spec.name for spec in manifest.classes] == ['obstacle', 'water', 'sky']
    assert manifest.in_distribution == ('obstacle', 'water', 'sky')
    assert manifest.ground_classes == ('water',)
    assert manifest.heads[0].selection == 'gated'


def test_its_card_names_data_and_licence(bundle):
    card = bundle.path('MODEL_CARD.md').read_text(encoding='utf-8')
    for text in ('OASIs', 'no data licence stated', 'patent pending', 'fine-tuned from DINOv2'):
        assert text in card


def test_the_labels_of_its_golden_vectors_have_sky_above_and_water_below(golden):
    for labels in golden['labels']:
        fifth = labels.shape[0] // 5
        assert (labels[:fifth] == SKY).mean() > 0.9
        assert (labels[-fifth:] == WATER).mean() > 0.9


def test_every_set_of_classes_has_a_table(bundle):
    (sample,) = read_samples(bundle).values()
    assert sample.surprisal.shape[1] == 1  # one score, whatever the class
    everything = sample.calibration(('obstacle', 'water', 'sky'))
    water = sample.calibration(('water',))
    surprisal = np.array([0.5, 1.0, 2.0, 3.0, 5.0], np.float32)
    # the final map's table was fitted on all classes: their set's table changes next to nothing
    np.testing.assert_allclose(everything(surprisal)[:3], surprisal[:3], atol=0.05)
    assert (np.diff(water(surprisal)) > 0).all()
    # of all pixels 1 % are flagged, of the water's fewer
    assert water(surprisal)[2] > 2.0


@pytest.fixture(scope='module')
def pipeline(bundle):
    try:
        whole = complete(bundle)
    except OodPerceptionError as error:
        pytest.skip(f'weights cannot be had here: {error}')
    engine, report = create_checked_engine(whole, EngineOptions(threads=1, precision='f32'))
    with engine:
        assert report.surprisal_difference < 0.05
        settings = Settings(roi=RoiSettings('none'), obstacle_classes=('obstacle',))
        yield Pipeline(whole, engine, settings)


def flagged(pipeline, photo, strip):
    """The flagged share of each label of a demo image, with noise (3) on its water."""
    image = read_image(SEA / 'images' / f'{photo}.jpg')
    truth = read_label(SEA / 'labels' / f'{photo}.png')
    image[strip] = np.random.default_rng(0).integers(0, 256, image[strip].shape)
    truth[strip] = NOISE
    mask = pipeline.run([Frame(image)])[0].mask
    seen = labels_to_grid(truth, mask.shape)
    return [mask[seen == label].mean() for label in range(4)]


@pytest.mark.parametrize('photo', ['01_sailing_boat', '02_coast_and_buoy'])
def test_what_is_neither_sea_nor_sky_is_an_obstacle(pipeline, photo):
    shares = flagged(pipeline, photo, np.s_[300:360, 100:180])
    assert shares[OBSTACLE] > 0.8
    assert shares[NOISE] > 0.5
    assert shares[WATER] < 0.02
    assert shares[SKY] < 0.1
