# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The promise of heads of every kind: counts by hand, PixOOD's own counts, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from feature_sets import make_feature_set  # noqa: E402
from test_trainer_cli import miniature, train  # noqa: E402

from ood_perception.calibration import HeldOutSample  # noqa: E402
from ood_perception.geometry import labels_to_grid  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.evaluation.promise_served import count_served  # noqa: E402
from trainer.heads.base import HeadModule  # noqa: E402

__all__ = ['miniature']
CLASSES = ('road', 'pavement', 'sky')


class Brightness(HeadModule):
    """The mean token, made positive; per class shifted by its number if per_class."""

    def __init__(self, per_class):
        super().__init__()
        self.name, self.layers, self.compiled_classes = 'brightness', ('tokens_5',), CLASSES
        self.selection, self.upsampling = 'min' if per_class else 'unified', 1

    def raw_scores(self, *tokens):
        raise NotImplementedError

    def outputs(self, *inputs):
        one = inputs[0].mean(3).abs()
        own = [one + 0.1 * c for c in range(3)] if self.selection == 'min' else []
        return one, one.to(torch.uint8), *own

    def forward(self, *inputs):
        return self.outputs(*inputs)[:2]


@pytest.mark.parametrize('per_class', [False, True])
def test_flagged_pixels_are_counted_by_the_table_of_the_set(per_class):
    features = make_feature_set(layers=('tokens_5',), pictures=4)
    rng = np.random.default_rng(0)
    held = HeldOutSample(
        CLASSES,
        rng.exponential(0.4, (6000, 3 if per_class else 1)).astype(np.float32),
        rng.integers(0, 3, 6000).astype(np.uint8),
        np.ones(6000, np.float32),
    )
    chosen = ('road', 'sky')
    counts = count_served(
        Brightness(per_class), features, chosen, ['a', 'a', 'b', 'b'], CLASSES, held
    )
    tokens = np.asarray(features.tokens['tokens_5']).astype(np.float32)
    one = np.abs(tokens.mean(3))
    labels = np.stack([labels_to_grid(image, (6, 8)) for image in features.labels])
    for reading, names in (('served', chosen), ('every class', CLASSES)):
        surprisal = held.table(names)(one)  # the least shift is the first class's, 0
        for number, rate in enumerate((0.01, 0.02, 0.05)):
            flagged = surprisal >= -np.log10(rate)
            expected = [(flagged & (labels == c)).sum() for c in range(3)]
            found = sum(picture.flagged for picture in counts[reading])[number]
            assert found == pytest.approx(expected, abs=1)
        assert [picture.group for picture in counts[reading]] == ['a', 'a', 'b', 'b']


def test_the_command_serves_other_kinds_of_heads(miniature, capsys):
    changes = (
        '--set',
        'head.kind=knn',
        '--set',
        'knn.references=50',
        '--set',
        'knn.feature=keys_2',
    )
    assert train(miniature, 'promise', *changes) == 0
    report, record = miniature / 'promise.md', miniature / 'promise.json'
    places = ['--out', str(miniature / 'promise'), '--cache', str(miniature / 'cache')]
    files = ['--report', str(report), '--json', str(record)]
    recipe = str(miniature / 'recipe.yaml')
    assert main(['promise', recipe, '--split', 'train', *places, *files, *changes]) == 0
    header = report.read_text().splitlines()[0]
    assert '| served for left | served for every class |' in header
    rows = json.loads(record.read_text())
    assert set(rows) == {'served', 'every class'}
    assert {row['class_name'] for row in rows['served']} == {'left', 'pooled'}
