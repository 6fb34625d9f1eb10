# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a backbone gave is found again, image by image: further views of a frame, too."""

import numpy as np
import pytest

pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')

from bundles import donor_of, road_image, write_tiny_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.image.views import ViewSpec
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.settings import Settings
from ood_perception.types import Frame
from trainer.evaluation.engines import share_backbone

WHOLE = Settings(roi=RoiSettings('none'))


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    """One backbone, its bundle with a view and the one without."""
    root = tmp_path_factory.mktemp('shared')
    options = {'external_weights': True, 'compiled_classes': ('Road', 'Pavement')}
    seen = write_tiny_bundle(root / 'seen', views=(ViewSpec('far'),), **options)
    return seen, write_tiny_bundle(root / 'plain', **options)


def found(place, frames, folder=None, views=True):
    """Return every frame's surprisal, and how often the backbone ran."""
    bundle = complete(load_bundle(place), str(donor_of(place)))
    with create_engine(bundle, EngineOptions('openvino', 'f32', 1)) as engine:
        runs = []
        if folder:
            share_backbone(engine, bundle, folder)
            first = engine.first_stage
            engine.first_stage = lambda feeds, compute: first(
                feeds, lambda: (runs.append(len(feeds[0])), compute())[1]
            )
        settings = Settings(roi=WHOLE.roi, views=views)
        detections = Pipeline(bundle, engine, settings).run(frames)
        return np.stack([one.surprisal for one in detections]), runs


def test_views_are_kept_one_by_one_and_serve_other_batches_and_bundles(places, tmp_path):
    seen, plain = places
    frames = [Frame(road_image(112, 168, (60, 20, 80, 40), seed=seed)) for seed in (1, 2)]
    expected, _ = found(seen, frames)
    first, runs = found(seen, frames, tmp_path)
    np.testing.assert_array_equal(first, expected)
    assert runs == [4]
    again, runs = found(seen, frames[::-1], tmp_path)
    np.testing.assert_array_equal(again, expected[::-1])
    whole, without_view = (
        found(*args)[0] for args in ((plain, frames), (seen, frames, tmp_path, False))
    )
    np.testing.assert_allclose(without_view, whole, atol=1e-4)
    _, runs_of_plain = found(plain, frames, tmp_path)
    assert runs == runs_of_plain == []
    assert len(list(tmp_path.rglob('*.npz'))) == 4
