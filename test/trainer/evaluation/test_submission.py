# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Submission files: the official forms, ranks that survive float16, resuming, and mistakes."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from server_images import from_coloured

pytest.importorskip('torch')
from bundles import road_image, write_tiny_bundle
from paths import need_data

from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError, DataError, OodPerceptionError
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.requirements import install_command
from ood_perception.types import Frame
from trainer.__main__ import main
from trainer.data.images import read_image
from trainer.datasets import open_set
from trainer.evaluation.submission import (
    as_float16,
    score_map,
    target_of,
    write_lars,
    write_scores,
)

HEIGHT, WIDTH = 56, 84
BOX = (42, 28, 14, 14)


def write_track(root, count=10):
    """Ten validation images, the odd square in each; the tiny bundle finds it."""
    folder = root / 'dataset_AnomalyTrack'
    for part in ('images', 'labels_masks'):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        photo = cv2.cvtColor(road_image(HEIGHT, WIDTH, BOX, seed=number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f'images/validation{number:04d}.png'), photo)
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        name = f'validation{number:04d}_labels_semantic.png'
        cv2.imwrite(str(folder / 'labels_masks' / name), label)
    return folder


def submit(bundle, root, out, *more, data='smiyc_anomaly/validation'):
    return main([
        'submission', str(bundle), '--data', data, '--method', 'ours', '--root', str(root),
        '--out', str(out), '--precision', 'f32', '--threads', '1', '--quiet', *more,
    ])  # fmt: skip


def test_smiyc_files_are_what_its_tool_reads(tiny_bundle, tmp_path, capsys):
    h5py = pytest.importorskip('h5py')
    write_track(tmp_path)
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out') == 0
    folder = tmp_path / 'out/anomaly_p/ours/AnomalyTrack-all'
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == [f'validation{n:04d}.hdf5' for n in range(10)]
    with h5py.File(files[3], 'r') as file:
        assert list(file) == ['value']
        assert (file['value'].dtype, file['value'].shape) == (np.float16, (HEIGHT, WIDTH))
        assert (file['value'].compression, file['value'].compression_opts) == ('gzip', 9)
        scores = file['value'][:]
    odd = np.zeros((HEIGHT, WIDTH), bool)
    odd[30:40, 44:54] = True
    road = np.zeros_like(odd)
    road[20:, :28] = True
    assert scores[odd].min() > scores[road].max()
    assert '10 files, 10 written now' in capsys.readouterr().out


def test_a_stopped_run_goes_on_and_other_settings_are_refused(tiny_bundle, tmp_path, capsys):
    write_track(tmp_path)
    out = tmp_path / 'out'
    assert submit(tiny_bundle, tmp_path, out, '--format', 'npy') == 0
    folder = out / 'anomaly_p/ours/AnomalyTrack-all'
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / 'validation0004.npy').unlink()
    kept = (folder / 'validation0005.npy').stat().st_mtime_ns
    assert submit(tiny_bundle, tmp_path, out, '--format', 'npy') == 0
    assert '10 files, 1 written now' in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert (folder / 'validation0005.npy').stat().st_mtime_ns == kept
    assert submit(tiny_bundle, tmp_path, out, '--format', 'npy', '--ground') == 2
    assert 'another bundle or other settings' in capsys.readouterr().err
    facts = json.loads((out / 'anomaly_p_ours_AnomalyTrack-all.json').read_text())
    assert facts['bundle'] == 'tiny'


def test_the_splits_of_a_track_share_their_files(tiny_bundle, tmp_path, capsys):
    folder = write_track(tmp_path)
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out', '--format', 'npy') == 0
    for number in range(100):
        content = (folder / 'images/validation0000.png').read_bytes()
        (folder / f'images/street{number:04d}.png').write_bytes(content)
    whole = ('--format', 'npy')
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out', *whole, data='smiyc_anomaly/all') == 0
    assert '110 files, 100 written now' in capsys.readouterr().out


def test_hdf5_without_its_package_says_what_to_install(tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    write_track(tmp_path)
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out') == 2
    assert install_command('submission') in capsys.readouterr().err


def test_scores_outside_the_predicted_ground_are_zero(tiny_bundle, tmp_path):
    write_track(tmp_path)
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out', '--format', 'npy', '--ground') == 0
    scores = np.load(tmp_path / 'out/anomaly_p/ours/AnomalyTrack-all/validation0000.npy')
    assert (scores[:8] == 0).all()
    assert (scores[30:40, 44:54] > 0).all()


def test_a_broken_image_stops_the_run_by_name(tiny_bundle, tmp_path, capsys):
    folder = write_track(tmp_path)
    (folder / 'images/validation0002.png').write_bytes(b'\x89PNG')
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out', '--format', 'npy') == 2
    assert 'validation0002.png is broken' in capsys.readouterr().err
    left = tmp_path / 'out/anomaly_p/ours/AnomalyTrack-all'
    assert [path.name for path in sorted(left.iterdir())] == [
        'validation0000.npy', 'validation0001.npy',
    ]  # fmt: skip


def write_sea(root):
    """Water below, sky above, an odd square on the water; no labels: the test split."""
    folder = root / 'lars/test'
    (folder / 'images').mkdir(parents=True)
    photo = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    photo[: HEIGHT // 2] = (150, 190, 235)
    photo[HEIGHT // 2 :] = (20, 80, 140)
    photo[28:42, 42:56] = (230, 40, 220)
    cv2.imwrite(str(folder / 'images/yt001_00010.jpg'), photo[:, :, ::-1])
    (folder / 'image_list.txt').write_text('yt001_00010\n')


def test_lars_files_hold_the_servers_colours(tmp_path):
    bundle = write_tiny_bundle(
        tmp_path / 'sea',
        classes=('Water', 'Sky', 'Car'),
        in_distribution=('Water', 'Sky'),
        ground_classes=('Water',),
    )
    write_sea(tmp_path)
    assert submit(bundle, tmp_path, tmp_path / 'out', data='lars/test') == 0
    path = tmp_path / 'out/ours/yt001_00010.png'
    colors = cv2.imread(str(path))[:, :, ::-1]
    assert colors[35, 49].tolist() == [247, 195, 37]
    assert colors[50, 10].tolist() == [41, 167, 224]
    assert colors[5, 10].tolist() == [90, 75, 164]
    labels = from_coloured(read_image(path))
    assert [labels[place] for place in ((35, 49), (50, 10), (5, 10))] == [0, 1, 2]


def test_lars_needs_water_and_sky(tiny_bundle, tmp_path, capsys):
    write_sea(tmp_path)
    assert submit(tiny_bundle, tmp_path, tmp_path / 'out', data='lars/test') == 2
    assert "none of ['Water', 'water'] is a class of bundle tiny" in capsys.readouterr().err


def test_lars_colours_go_round_and_others_are_ignored(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (20, 30), dtype=np.uint8)
    write_lars(tmp_path / 'p.png', labels)
    np.testing.assert_array_equal(from_coloured(read_image(tmp_path / 'p.png')), labels)
    pixels = cv2.imread(str(tmp_path / 'p.png'))
    pixels[0, 0] = (37, 195, 246)  # BGR, one off
    cv2.imwrite(str(tmp_path / 'p.png'), pixels)
    assert from_coloured(read_image(tmp_path / 'p.png'))[0, 0] == 255


def test_float16_keeps_the_ranks_of_surprisal_and_not_of_the_score():
    surprisal = np.linspace(2.0, 6.0, 1000, dtype=np.float32)
    kept = len(np.unique(as_float16(surprisal)))
    score = 1 - 10.0 ** -surprisal.astype(np.float64)
    collapsed = len(np.unique(score.astype(np.float16)))
    assert kept == 1000  # float16's steps below 8 are 1/256 at most, the values 1/249.75 apart
    assert collapsed < 30
    assert (np.diff(as_float16(surprisal).astype(np.float64)) >= 0).all()


@pytest.mark.parametrize('bad', [np.nan, np.inf, 7e4])
def test_scores_that_float16_cannot_hold_are_refused(tmp_path, bad):
    with pytest.raises(DataError, match=r'not finite or above 65504'):
        write_scores(tmp_path / 'x.npy', np.array([[1.0, bad]], np.float32))
    assert not list(tmp_path.iterdir())


def test_targets_follow_the_benchmarks_names():
    names = {
        'smiyc_anomaly/all': 'AnomalyTrack-all', 'smiyc_obstacle/test': 'ObstacleTrack-all',
        'smiyc_lost_and_found/test_no_known': 'LostAndFound-test',
        'smiyc_lost_and_found/train': 'LostAndFound-train',
    }  # fmt: skip
    for name, folder in names.items():
        assert target_of(name, 'anomaly', 'm', 'hdf5').folder.name == folder
    with pytest.raises(ConfigError, match=r'streethazards/test has no submission files'):
        target_of('streethazards/test', 'anomaly', 'm', 'hdf5')
    with pytest.raises(ConfigError, match=r"method '\.\./x'"):
        target_of('smiyc_anomaly/all', 'anomaly', '../x', 'hdf5')
    with pytest.raises(ConfigError, match=r"format 'tiff'"):
        target_of('smiyc_anomaly/all', 'anomaly', 'm', 'tiff')


@pytest.mark.data
@pytest.mark.weights
@pytest.mark.slow
def test_float16_costs_surprisal_nothing_and_the_score_much(capsys):
    """The figures of docs/datasets.md, on the 15 images of road_obstacle_dev."""
    root = need_data('road_obstacle_dev').parent
    data = open_set('road_obstacle_dev', root)
    try:
        bundle = complete(load_bundle(default_bundle_path()))
    except OodPerceptionError as error:
        pytest.skip(f'weights: {error}')
    truth, surprisal = [], []
    with create_engine(bundle, EngineOptions(threads=1)) as engine:
        pipeline = Pipeline(bundle, engine, Settings(roi=RoiSettings('none')))
        for index in range(len(data)):
            image, labels = data.read(index)
            scores = score_map(pipeline.run([Frame(image)])[0])
            truth.append(labels[labels < 255])
            surprisal.append(scores[labels < 255])
    exact = np.concatenate(surprisal)
    kept = as_float16(exact)
    collapsed = (1 - 10.0 ** -exact.astype(np.float64)).astype(np.float16)
    metric = pytest.importorskip('sklearn.metrics').average_precision_score
    found = [
        metric(np.concatenate(truth), values.astype(np.float32))
        for values in (exact, kept, collapsed)
    ]
    above = [len(np.unique(values[exact > 2])) for values in (exact, kept, collapsed)]
    with capsys.disabled():
        print('\nAP, distinct values above 2:', [f'{ap:.4f}' for ap in found], above)
    assert abs(found[1] - found[0]) < 0.001
    assert found[2] < found[0] - 0.01
    assert above[2] < 100 < above[1]
