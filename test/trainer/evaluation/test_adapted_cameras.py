# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What adaptation gives, on drawn scores whose distribution is known."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs it')

from ood_perception.adapt.curves import Normal
from ood_perception.adapt.levels import Pasted
from ood_perception.adapt.observe import SeenFrame
from ood_perception.postprocess.image_statistics import statistics_of
from trainer.evaluation.adapted_cameras import (
    Camera,
    Parent,
    contamination_of,
    drift_of,
    rates_of,
)

CELLS = 1500
PARENT = Parent('drawn', Normal(('Road',), ('Road',)), None)
LOOK = statistics_of(np.zeros((8, 8, 3), np.uint8))


def frame(seed, stretch=1.0, objects=0, height=3.0):
    """Return a frame whose surprisal is exponential; `stretch` 1 = as calibrated."""
    rng = np.random.default_rng(seed)
    values = stretch * -np.log10(1 - rng.random(CELLS))
    values[:objects] = height
    half = values.astype(np.float16)
    cells = np.arange(CELLS, dtype=np.int32)
    truth = np.zeros(CELLS, np.uint8)
    return SeenFrame(
        str(seed), '', 0, cells, half[:, None, None], half, truth, 1.0, LOOK, truth == 0
    )


def camera(name, stretch, first=0, count=60, every=3, **options):
    """Return a camera with objects of 40 cells on every third frame."""
    frames = [frame(first + k, stretch) for k in range(count)]
    found = np.arange(CELLS) < 40
    pasted = [
        Pasted(frame(first + k, stretch, 40, **options), found, k) for k in range(0, count, every)
    ]
    return Camera(name, frames, pasted)


@pytest.mark.parametrize('count', [20, 60])
def test_a_few_frames_bring_all_of_them_to_the_target(count):
    row = rates_of(PARENT, camera('far', 2.0), count, contamination=0.0)
    rates = row['levels']['curves']['rates']
    assert (row['frames'], row['measured_on']) == (count, 60)
    assert rates[0]['before'] == pytest.approx(0.1, rel=0.1)  # 10^(-2/2)
    for rate in rates:
        assert rate['observed'] == pytest.approx(rate['target'], rel=0.2)


def test_objects_among_the_frames_that_adapt_hide_such_objects():
    # of 60 frames 12 hold 40 of 1500 such cells: 0.5 %, and they score as the highest 0.7 % do
    rows = contamination_of(PARENT, camera('far', 1.0, height=2.15), contamination=0.0)
    assert [row['with_objects'] for row in rows] == [0, 1, 3, 12]
    assert rows[0]['objects_found'] > 0.95
    assert rows[-1]['objects_found'] < 0.7, 'the threshold is among their equal scores'
    assert rows[0]['flagged'] == pytest.approx(0.01, rel=0.2)
    assert rows[-1]['flagged'] < rows[0]['flagged']
    cut = contamination_of(PARENT, camera('far', 1.0, height=2.15), contamination=0.01)
    assert cut[-1]['objects_found'] > 0.95, 'what is cut off is found'


def test_of_a_hundred_frames_one_five_and_twenty_hold_objects():
    rows = contamination_of(PARENT, camera('far', 1.0, count=120, every=6), contamination=0.0)
    assert [(row['frames'], row['with_objects']) for row in rows] == [
        (100, 0), (100, 1), (100, 5), (100, 20),
    ]  # fmt: skip


def test_labelled_anomalies_are_no_ground_of_a_clean_frame():
    found = np.arange(CELLS) >= CELLS - 100
    odd = camera('odd', 1.0)
    clean = replace(odd, labelled=[Pasted(odd.frames[3], found, 3)]).without_anomalies()
    assert [len(one.cells) for one in clean.frames[2:5]] == [CELLS, CELLS - 100, CELLS]
    twin = next(one for one in clean.pasted if one.place == 3)
    assert len(twin.frame.cells) == len(twin.found) == CELLS - 100
    assert twin.found.sum() == 40


def test_the_drift_test_warns_abroad_alone():
    near, far = camera('near', 1.0), camera('far', 2.0, first=100)
    rows = {(row['adapted_to'], row['camera']): row for row in drift_of(PARENT, [near, far], 0.0)}
    for home, seen in (('', 'near'), ('near', 'near'), ('far', 'far'), ('far', 'near')):
        assert rows[home, seen]['frames_to_warning'] is None
        assert rows[home, seen]['runs_with_warning'] == 0
    for home in ('', 'near'):
        row = rows[home, 'far']
        # of an exponential score that is stretched by two: the root of the target
        assert row['flagged'] == pytest.approx(np.sqrt([0.01, 0.02, 0.05]), rel=0.1)
        assert row['frames_to_warning'] < 100
        assert row['runs_with_warning'] == row['runs']
        assert row['recording_warns']
