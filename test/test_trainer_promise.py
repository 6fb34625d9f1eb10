# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Promised against observed rates per class: each reading against a count by hand."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
from test_trainer_pixood import (  # noqa: E402
    CLASSES,
    LAYERS,
    classifier,
    head_of,
    make_feature_set,
    model,
    train,
)

from ood_perception.geometry import labels_to_grid  # noqa: E402
from trainer.evaluation.promise import COLUMNS, count_readings, readings_table  # noqa: E402
from trainer.evaluation.promise_rows import readings_rows  # noqa: E402
from trainer.set_calibration import sample_held_out  # noqa: E402

__all__ = ['classifier', 'model', 'train']
CHOSEN = ('road', 'pavement')


@pytest.fixture(scope='module')
def fresh():
    return make_feature_set(pictures=6, seed=3)


@pytest.fixture(scope='module')
def sample(model):
    held_out = make_feature_set(pictures=40, seed=1)
    return sample_held_out(head_of(model, 'min'), held_out, CLASSES)


@pytest.fixture(scope='module')
def counts(model, fresh, sample):
    groups = ['one'] * 3 + ['two'] * 3
    return count_readings(head_of(model, 'min'), model, fresh, CHOSEN, groups, CLASSES, sample)


def total(pictures):
    return sum(picture.flagged for picture in pictures), sum(p.pixels for p in pictures)


def test_the_served_reading_is_what_the_exported_head_and_the_sets_table_flag(
    model, fresh, counts, sample
):
    head = head_of(model, 'min')
    tokens = [torch.from_numpy(np.array(fresh.tokens[layer])).float() for layer in LAYERS]
    chosen = torch.tensor([float(name in CHOSEN) for name in head.compiled_classes])
    with torch.inference_mode():
        surprisal = head(*tokens, chosen)[0].numpy()
    table = sample.table(CHOSEN)
    surprisal = table(surprisal) if table else surprisal
    labels = np.stack([labels_to_grid(np.asarray(x), surprisal.shape[1:]) for x in fresh.labels])
    for number, rate in enumerate((0.01, 0.02, 0.05)):
        flagged = surprisal >= -np.log10(rate)
        by_class = [(flagged & (labels == c)).sum() for c in range(len(CLASSES))]
        assert total(counts['served'])[0][number] == pytest.approx(by_class, abs=2)
    assert total(counts['served'])[1].tolist() == [(labels == c).sum() for c in range(3)]


@pytest.mark.parametrize('selection', ['gated', 'unified'])
def test_a_single_score_is_judged_by_its_one_table(model, fresh, selection):
    head = head_of(model, selection)
    held_out = make_feature_set(pictures=40, seed=1)
    sample = sample_held_out(head, held_out, CLASSES)
    counts = count_readings(head, model, fresh, CHOSEN, ['one'] * 6, CLASSES, sample)
    tokens = [torch.from_numpy(np.array(fresh.tokens[layer])).float() for layer in LAYERS]
    with torch.inference_mode():
        surprisal = head(*tokens, torch.ones(3))[0].numpy()
    labels = np.stack([labels_to_grid(np.asarray(x), surprisal.shape[1:]) for x in fresh.labels])
    for number, rate in enumerate((0.01, 0.02, 0.05)):
        for reading, table in (('held-out', None), ('served', sample.table(CHOSEN))):
            flagged = (table(surprisal) if table else surprisal) >= -np.log10(rate)
            by_class = [(flagged & (labels == c)).sum() for c in range(len(CLASSES))]
            assert total(counts[reading])[0][number] == pytest.approx(by_class, abs=2)
    pixels = total(counts['held-out'])[1].sum()
    # nothing was promised of the gate; the map's own table keeps it on like pictures
    assert total(counts['held-out'])[0][2].sum() < 2 * 0.05 * pixels
    table = readings_table(readings_rows(counts, CLASSES, CHOSEN), COLUMNS[selection])
    assert COLUMNS[selection][0] in table.splitlines()[0]


def test_the_sets_table_gives_back_what_the_least_over_classes_loses(counts):
    served, own = (total(counts[reading])[0][:, :2].sum(1) for reading in ('served', 'held-out'))
    assert own.sum() > 0
    assert (served >= own / 3).all()


def test_every_reading_has_its_column_and_classes_that_are_not_served_stay_empty(counts):
    lines = readings_table(readings_rows(counts, CLASSES, CHOSEN)).splitlines()
    sky = [line for line in lines if '| sky |' in line]
    assert 'own table' in lines[0]
    assert 'served for the default set | served for every class' in lines[0]
    assert sky
    assert all(line.split('|')[6].strip() == '' for line in sky)
    assert {line.split('|')[1].strip() for line in lines[2:]} == {'all', 'one', 'two'}
