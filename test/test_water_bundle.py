# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped boat's bundle: small, free of anybody's pictures, and sensible on the sea."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import load_bundle
from ood_perception.calibration import read_samples
from ood_perception.demo.sea import SEA_SCENES, SKY, WATER, SeaScene, render_sea
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import OodPerceptionError
from ood_perception.geometry import geometry_for, labels_to_grid, to_network
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.roi import RoiSettings
from ood_perception.types import Frame


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


def test_its_golden_pictures_are_rendered(bundle, golden):
    spec = bundle.manifest.input
    for scene, picture in zip(SEA_SCENES, golden['image'], strict=True):
        image = render_sea(scene).image
        geometry = geometry_for(
            image.shape[:2], (spec.height, spec.width), spec.policy, spec.anchor
        )
        # resizing may round otherwise in another version of OpenCV
        assert np.abs(to_network(image, geometry).astype(int) - picture).max() <= 2


def test_it_tells_sea_from_sky_in_pictures_that_are_only_rendered(golden):
    for scene, labels in zip(SEA_SCENES, golden['labels'], strict=True):
        truth = labels_to_grid(render_sea(scene).labels, labels.shape)
        for known in (WATER, SKY):
            both = ((truth == known) & (labels == known)).sum()
            assert both / ((truth == known) | (labels == known)).sum() > 0.8


def test_every_set_of_classes_has_a_table(bundle):
    (sample,) = read_samples(bundle).values()
    assert sample.surprisal.shape[1] == 1  # one score, whatever the class
    everything = sample.table(('obstacle', 'water', 'sky'))
    water = sample.table(('water',))
    surprisal = np.array([0.5, 1.0, 2.0, 3.0, 5.0], np.float32)
    # the final map's table was fitted on all classes: their set's table changes next to nothing
    np.testing.assert_allclose(everything(surprisal)[:3], surprisal[:3], atol=0.05)
    assert (np.diff(water(surprisal)) > 0).all()
    # of all pixels 1 % are flagged, of the water's fewer
    assert water(surprisal)[2] > 2.0


def test_what_is_neither_sea_nor_sky_is_an_obstacle(bundle):
    try:
        whole = complete(bundle)
    except OodPerceptionError as error:
        pytest.skip(f'weights cannot be had here: {error}')
    engine, report = create_checked_engine(whole, EngineOptions(threads=1, precision='f32'))
    with engine:
        assert report.surprisal_difference < 0.05
        settings = Settings(roi=RoiSettings('none'), obstacle_classes=('obstacle',))
        pipeline = Pipeline(whole, engine, settings)
        plain = render_sea(SeaScene(5)).image
        odd = plain.copy()
        odd[250:310, 100:180] = np.random.default_rng(0).integers(0, 256, (60, 80, 3))
        truth = np.zeros(plain.shape[:2], np.uint8)
        truth[250:310, 100:180] = 1
        without, found = (pipeline.run([Frame(image)])[0] for image in (plain, odd))
        inside = labels_to_grid(truth, found.mask.shape) == 1
        assert found.mask[inside].mean() > 0.7
        assert without.mask[inside].mean() < 0.05
