# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')
from feature_sets import make_feature_set  # noqa: E402
from pixood_models import some_model  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.classifier import Classifier  # noqa: E402
from trainer.data import ClassMap, PictureList  # noqa: E402
from trainer.experiments.rows import Row  # noqa: E402
from trainer.experiments.scoring import (  # noqa: E402
    latency_ms,
    read_mask,
    score_maps,
    score_of,
    scored_pictures,
    write_ground_masks,
)
from trainer.experiments.workbench import bench_config, parts_of, picked, reordered  # noqa: E402
from trainer.heads.pixood_module import PixOODHead  # noqa: E402

CLASSES = ('road', 'pavement')


@pytest.fixture(scope='module')
def head():
    return PixOODHead(some_model(), 3, 'min', 'held-out', CLASSES)


@pytest.fixture(scope='module')
def tokens():
    torch.manual_seed(1)
    return [torch.randn(1, 4, 5, 32) for _ in range(2)]


def row(**values):
    return Row('a', classes=values.pop('classes', CLASSES), upsampling=3, **values)


def test_the_full_score_is_the_heads_surprisal(head, tokens):
    got = score_of(row(), head)(*tokens)
    torch.testing.assert_close(got, head(*tokens, torch.ones(2))[0])


def test_the_distance_alone_is_that_of_the_nearest_etalon(head, tokens):
    got = score_of(row(score='distance'), head)(*tokens)
    etalons = some_model().etalons
    banks = torch.cat([torch.from_numpy(etalons[name]) for name in CLASSES])
    corner = torch.cdist(tokens[-1].reshape(-1, 32), banks).amin(1).reshape(1, 4, 5)
    torch.testing.assert_close(got[:, 1::3, 1::3], corner, rtol=1e-4, atol=1e-4)


def test_softmax_and_logit_are_those_of_the_chosen_classes(head, tokens):
    logits = head.upsampled_logits(*tokens)
    softmax = score_of(row(score='max_softmax'), head)(*tokens)
    wanted = 1 - logits.softmax(3)[..., [0, 2]].amax(3)
    torch.testing.assert_close(1 - torch.exp(-softmax), wanted)
    logit = score_of(row(score='max_logit', classes=()), head)(*tokens)
    torch.testing.assert_close(logit, -logits.amax(3))


def test_softmax_never_saturates(head):
    model = some_model()
    with torch.no_grad():
        model.classifier.output.weight.mul_(300)
    sure = score_of(row(score='max_softmax'), PixOODHead(model, 3, classes=CLASSES))
    torch.manual_seed(1)
    scores = sure(*[torch.randn(1, 8, 8, 32) for _ in range(2)])
    assert (1 - torch.exp(-scores)).unique().numel() < scores.unique().numel()


def test_unknown_classes_are_named(head):
    with pytest.raises(ConfigError, match="'kerb'"):
        score_of(row(score='max_logit', classes=('kerb',)), head)


def test_reordering_moves_the_blocks_and_keeps_the_function():
    torch.manual_seed(0)
    for kind in ('mlp', 'linear'):
        classifier = Classifier(12, 3, ['a', 'b', 'c'], kind, 8)
        parts = dict(zip('abc', torch.randn(3, 1, 2, 2, 4), strict=True))
        moved = reordered(classifier, ['c', 'a', 'b'])
        assert moved.layers == ('c', 'a', 'b')
        torch.testing.assert_close(
            moved(torch.cat([parts[k] for k in 'cab'], 3)),
            classifier(torch.cat([parts[k] for k in 'abc'], 3)),
        )


def write_set(folder, size=(56, 84), count=2):
    folder.mkdir()
    names = tuple(f'p{number}' for number in range(count))
    labels = np.zeros(size, np.uint8)
    labels[20:30, 30:50] = 1
    for name in names:
        cv2.imwrite(str(folder / f'{name}.png'), np.zeros((*size, 3), np.uint8))
        cv2.imwrite(str(folder / f'{name}_l.png'), labels)
    return PictureList(
        names,
        tuple(folder / f'{name}.png' for name in names),
        tuple(folder / f'{name}_l.png' for name in names),
        ('',) * count,
        ClassMap(('normal', 'anomaly'), ((0, 0, 0),) * 2, {0: 0, 1: 1}),
    )


def test_maps_are_scored_at_label_size_and_per_region(tmp_path):
    pictures = write_set(tmp_path / 'set')
    features = make_feature_set(pictures=2, grid=(4, 6))
    _, labels = pictures.read(0)
    maps = (labels.astype(np.float32) for _ in range(2))
    right = np.zeros(labels.shape, bool)
    right[:, 40:] = True
    got = scored_pictures(
        pictures, features, maps, {'image': lambda i: None, 'right': lambda i: right}
    )
    assert [p.positives.size for p in got['image']] == [200, 200]
    assert got['image'][0].positives.min() > got['image'][0].negatives.max()
    assert [p.missed for p in got['right']] == [100, 100]


def test_score_maps_run_over_a_feature_set(head):
    features = make_feature_set(pictures=3, grid=(4, 6), dim=32, layers=head.layers)
    maps = list(score_maps(score_of(row(), head), features, head.layers))
    assert len(maps) == 3
    assert maps[0].shape == (12, 18)
    assert maps[0].dtype == np.float32


def test_ground_masks_are_made_once_and_read_back(head, tmp_path):
    pictures = write_set(tmp_path / 'set')
    features = make_feature_set(pictures=2, grid=(4, 6), dim=32, layers=head.layers)
    write_ground_masks(tmp_path / 'masks', pictures, features, head, CLASSES)
    first = read_mask(tmp_path / 'masks' / 'p0.png')
    assert first.shape == (56, 84)
    cv2.imwrite(str(tmp_path / 'masks' / 'p0.png'), np.zeros((56, 84), np.uint8))
    write_ground_masks(tmp_path / 'masks', pictures, features, head, CLASSES)
    assert not read_mask(tmp_path / 'masks' / 'p0.png').any()
    with pytest.raises(DataError, match='no mask'):
        read_mask(tmp_path / 'masks' / 'p9.png')


def list_of(names, sequences):
    paths = tuple(tmp for tmp in names)
    classes = ClassMap(('road',), ((0, 0, 0),), {0: 0})
    return PictureList(tuple(names), paths, paths, tuple(sequences), classes)


def test_parts_are_disjoint_contiguous_and_whole():
    train = list_of([f't{n:03d}' for n in range(200)], ['a'] * 100 + ['b'] * 100)
    val = list_of([f'v{n:03d}' for n in range(40)], ['v'] * 40)
    parts = parts_of(train, val)
    groups = [set(part.names) for part in (parts.fit, parts.selection, parts.calibration)]
    assert sum(map(len, groups)) == 240
    assert set.union(*groups) == {*train.names, *val.names}
    assert [len(group) for group in groups] == [130, 40, 70]
    assert parts.fit.names[:65] == train.names[:65]
    assert parts.selection.names[:10] == train.names[65:75]
    assert parts.selection.names[-20:] == val.names[20:]


def test_picked_features_are_those_of_the_named_pictures():
    sets = [make_feature_set(pictures=3, seed=seed) for seed in (0, 1)]
    renamed = [
        type(one)(tuple(f'{k}{n}' for n in range(3)), *list(vars(one).values())[1:])
        for k, one in zip('ab', sets, strict=True)
    ]
    got = picked(renamed, ['b1', 'a0'])
    np.testing.assert_array_equal(got.tokens['tokens_5'][0], sets[1].tokens['tokens_5'][1])
    np.testing.assert_array_equal(got.labels[1], sets[0].labels[0])
    assert got.key not in {one.key for one in renamed}


def test_latency_is_a_median_in_milliseconds():
    calls = []
    assert 0 <= latency_ms(lambda: calls.append(1), repeats=3) < 50
    assert len(calls) == 4


def test_table_options_are_checked(tmp_path):
    good = bench_config({'folder': 'out', 'data': 'd', 'view': {'size': [28, 42]}}, 'x.yaml')
    assert good.view.size == (28, 42)
    with pytest.raises(ConfigError, match=r"x.yaml: unknown keys \['datas'\]"):
        bench_config({'folder': 'out', 'datas': 'd'}, 'x.yaml')
    with pytest.raises(ConfigError, match='give "folder"'):
        bench_config({'data': 'd'}, 'x.yaml')
