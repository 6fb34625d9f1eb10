# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer evaluate` on a bundle with a further view: with it, without it, in batches."""

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('torch')
from bundles import write_tiny_bundle
from evaluated_sets import BOX, SETS, anomaly_labels, evaluate, write_images

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.image.geometry import to_camera
from ood_perception.image.views import ViewSpec
from ood_perception.metrics.pixel import exact_metrics, scored_image
from ood_perception.pipeline import Pipeline
from ood_perception.settings import Settings
from ood_perception.types import Frame
from trainer.evaluation.engines import count_one_view
from trainer.evaluation.evaluate import parser
from trainer.evaluation.options import engine_options, opened


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('views') / 'seen', views=(ViewSpec('far'),))


@pytest.fixture(scope='module')
def roads(tmp_path_factory):
    root = tmp_path_factory.mktemp('roads')
    write_images(root / SETS[0], anomaly_labels, [BOX, None, (50, 30, 6, 6)])
    return root


def auroc(bundle, folder, views):
    """Return the figure of detections that share nothing with the program."""
    loaded = load_bundle(bundle)
    with create_engine(loaded, EngineOptions('auto', 'f32', 1)) as engine:
        pipeline, parts = Pipeline(loaded, engine, Settings(views=views)), []
        for path in sorted((folder / 'images').iterdir()):
            image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
            labels = cv2.imread(str(folder / 'labels' / path.name), cv2.IMREAD_UNCHANGED)
            (found,) = pipeline.run([Frame(image)])
            parts.append(scored_image(to_camera(found.surprisal, found.geometry), labels))
    return exact_metrics(parts).auroc


def test_runs_with_views_and_without_are_measured_beside_each_other(bundle, roads, tmp_path):
    runs = tmp_path / 'runs.yaml'
    entries = [{'name': 'both', 'bundle': str(bundle)}]
    entries.append({'name': 'whole', 'bundle': str(bundle), 'views': False})
    runs.write_text(yaml.safe_dump({'runs': entries}))
    more = ('--runs', str(runs), '--batch', '2')
    values = evaluate(f'again={bundle}', roads, SETS[:1], tmp_path / 'out', *more, '--no-views')
    found = {
        run['name']: run['sets'][SETS[0]]['regions']['road']['auroc'] for run in values['runs']
    }
    expected = {views: auroc(bundle, roads / SETS[0], views) for views in (True, False)}
    assert expected[True] != pytest.approx(expected[False], abs=1e-3)
    assert found['whole'] == found['again'] == pytest.approx(expected[False], abs=1e-3)
    # the list's runs take what they do not say from the options
    assert found['both'] == found['whole']
    alone = evaluate(bundle, roads, SETS[:1], tmp_path / 'alone', '--batch', '3')
    regions = alone['runs'][0]['sets'][SETS[0]]['regions']
    assert regions['road']['auroc'] == pytest.approx(expected[True], abs=1e-3)


def test_an_engine_is_made_for_all_images_of_a_batch(bundle):
    options = parser().parse_args(['--batch', '3', '--precision', 'f32', '--threads', '1'])
    with opened(str(bundle), Settings(), engine_options(options)) as (_, pipeline):
        assert pipeline.engine.options.max_batch == 6


def test_one_view_may_count_alone(bundle):
    loaded = load_bundle(bundle)
    frame = Frame(np.random.default_rng(4).integers(0, 255, (90, 120, 3), np.uint8))
    with create_engine(loaded, EngineOptions('auto', 'f32', 1)) as engine:
        pipeline = Pipeline(loaded, engine, Settings())
        (both,) = pipeline.run([frame])
        pipeline.settings = Settings(views=False)
        (whole,) = pipeline.run([frame])
        count_one_view(engine, 'far')
        pipeline.settings = Settings()
        (far,) = pipeline.run([frame])
        with pytest.raises(ConfigError, match=r"no view 'near'; it has \['far'\]"):
            count_one_view(engine, 'near')
    np.testing.assert_array_equal(np.maximum(whole.surprisal, far.surprisal), both.surprisal)
    assert far.surprisal[0, 0] == 0 < far.surprisal.max()
    np.testing.assert_array_equal(far.labels, whole.labels)
