# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.evaluation.measure import alarms_of
from ood_perception.image.geometry import geometry_for
from ood_perception.metrics.false_alarm_rate import (
    EVERY_GROUP,
    POOLED,
    RATES,
    rate_rows,
)
from ood_perception.types import Detection, Frame

NAMES = ('road', 'pavement', 'sky')


def count_alarms(surprisal, labels, classes, rates=RATES):
    """Return what is counted of an image whose score grid has its own size."""
    everywhere = np.ones(labels.shape, bool)
    frame = Frame(np.zeros((*labels.shape, 3), np.uint8))
    likely, geometry = np.zeros_like(labels), geometry_for(labels.shape, labels.shape)
    found = Detection(frame, surprisal, likely, everywhere, ~everywhere, (), geometry, 0.01)
    return alarms_of(found, labels, classes, rates=rates)


def counted(images, groups=('a',)):
    """Return what rate_rows takes of images; groups: theirs, in turns."""
    columns = [np.stack([image[name] for image in images]) for name in ('flagged', 'pixels')]
    return (*columns, [groups[number % len(groups)] for number in range(len(images))])


def uniform_images(count=20, seed=0, groups=('a', 'b')):
    """p-values uniform for road and pavement (the target rate holds), half of them for sky."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        labels = rng.choice([0, 1, 2, 11], size=(60, 80), p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
        p_value = rng.random(labels.shape) * np.where(labels == 2, 0.1, 1.0)
        surprisal = -np.log10(p_value).astype(np.float32)
        images.append(count_alarms(surprisal, labels, 3))
    return counted(images, groups)


def rows_by_key(images, **options):
    rows = rate_rows(*images, NAMES, ('road', 'pavement'), **options)
    return {(row.group, row.class_name, row.target): row for row in rows}


def test_counts_are_those_of_the_mask():
    surprisal = np.array([[2.0, 1.99, 5.0, 0.0]], np.float32)
    labels = np.array([[0, 0, 1, 255]], np.uint8)
    got = count_alarms(surprisal, labels, 3, rates=(0.01, 0.5))
    np.testing.assert_array_equal(got['pixels'], [2, 1, 0])
    np.testing.assert_array_equal(got['flagged'], [[1, 1, 0], [2, 1, 0]])


def test_a_kept_rate_reads_as_kept():
    rows = rows_by_key(uniform_images())
    for name in ('road', 'pavement', POOLED):
        for rate in (0.01, 0.02, 0.05):
            row = rows[EVERY_GROUP, name, rate]
            assert row.kept
            assert row.observed == pytest.approx(rate, rel=0.2)
            assert row.interval.low <= row.observed <= row.interval.high
            assert row.images == 20


def test_a_broken_rate_reads_as_broken_and_stays_out_of_the_pool():
    rows = rows_by_key(uniform_images())
    sky = rows[EVERY_GROUP, 'sky', 0.01]
    assert sky.observed == pytest.approx(0.1, rel=0.2)
    assert not sky.kept
    road, pavement = (rows[EVERY_GROUP, name, 0.01] for name in ('road', 'pavement'))
    assert rows[EVERY_GROUP, POOLED, 0.01].pixels == road.pixels + pavement.pixels


def test_groups_are_reported_apart():
    images = uniform_images()
    rows = rows_by_key(images)
    assert {key[0] for key in rows} == {EVERY_GROUP, 'a', 'b'}
    total = sum(rows[group, 'road', 0.01].pixels for group in ('a', 'b'))
    assert total == rows[EVERY_GROUP, 'road', 0.01].pixels
    assert {key[0] for key in rows_by_key(uniform_images(groups=('a',)))} == {EVERY_GROUP}


def test_absent_classes_have_no_row():
    labels = np.zeros((4, 4), np.uint8)
    photo = count_alarms(np.zeros((4, 4), np.float32), labels, 3)
    rows = rate_rows(*counted([photo, photo]), NAMES, ('road',))
    assert {row.class_name for row in rows} == {'road', POOLED}


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="unknown classes \\['kerb'\\]"):
        rate_rows(*uniform_images(), NAMES, ('kerb',))
