# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer evaluate` on drawn roads, through the tiny bundle's own engine."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')
from bundles import write_tiny_bundle
from evaluated_sets import BOX, F32, HEIGHT, SETS, WIDTH, anomaly_labels, evaluate, write_images

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError, DataError
from ood_perception.image.geometry import to_camera, to_camera_nearest
from ood_perception.metrics.aupro import region_image
from ood_perception.metrics.pixel import exact_metrics, scored_image
from ood_perception.metrics.smiyc import (
    SizeLimits,
    component_counts,
    component_metrics,
    frame_components,
)
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.types import Frame
from trainer import datasets
from trainer.__main__ import main as trainer
from trainer.evaluation.evaluate import main


def camvid_labels(_):
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    labels[: HEIGHT // 4] = 0
    return labels


@pytest.fixture(scope='module')
def roads(tmp_path_factory):
    """Three images in each of two sets; in the second one a square is in the sky."""
    root = tmp_path_factory.mktemp('roads')
    write_images(root / 'road_obstacle_dev', anomaly_labels, [BOX, None, BOX])
    write_images(
        root / 'lost_and_found_dev',
        lambda box: np.uint8(anomaly_labels(box) == 1),
        [BOX, (42, 0, 14, 14), None],
    )
    return root


@pytest.fixture(scope='module')
def evaluated(tiny_bundle, roads, tmp_path_factory):
    out = tmp_path_factory.mktemp('evaluated')
    return out, evaluate(tiny_bundle, roads, SETS, out)


def test_a_log_gets_no_bar(tiny_bundle, roads, tmp_path, capsys):
    """The bar is for terminals: what a test captures is none."""
    words = [str(tiny_bundle), '--data', SETS[0], '--root', str(roads), '--out', str(tmp_path)]
    assert main([*words, '--precision', 'f32', '--threads', '1']) == 0
    assert 'image' not in capsys.readouterr().err


def detections(bundle, folder):
    """Yield every image's detection and labels by a loop that shares nothing with run.py."""
    loaded = load_bundle(bundle)
    with create_engine(loaded, EngineOptions('auto', 'f32', 1)) as engine:
        pipeline = Pipeline(loaded, engine)
        for path in sorted((folder / 'images').iterdir()):
            image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
            labels = cv2.imread(str(folder / 'labels' / path.name), cv2.IMREAD_UNCHANGED)
            yield pipeline.run([Frame(image)])[0], labels


@pytest.mark.parametrize('data', SETS)
def test_the_numbers_are_those_of_the_exact_metrics(tiny_bundle, roads, evaluated, data):
    whole, ground = [], []
    for found, labels in detections(tiny_bundle, roads / data):
        surprisal = to_camera(found.surprisal, found.geometry)
        whole.append(scored_image(surprisal, labels))
        inside = to_camera_nearest(found.scored, found.geometry)
        ground.append(scored_image(surprisal, labels, inside))
    regions = evaluated[1]['runs'][0]['sets'][data]['regions']
    expected = {'image': whole, 'ground': ground} if len(regions) == 2 else {'road': whole}
    assert set(regions) == set(expected)
    for region, images in expected.items():
        exact, got = exact_metrics(images), regions[region]
        for name in ('average_precision', 'average_precision_with_outside', 'fpr95', 'auroc'):
            low, high = got['bounds'][name]
            assert low - 1e-12 <= getattr(exact, name) <= high + 1e-12
            assert got[name] == pytest.approx(getattr(exact, name), abs=2e-3)
        assert (got['positives'], got['negatives']) == (exact.positives, exact.negatives)
        assert got['missed'] == exact.missed


@pytest.mark.parametrize('data', SETS)
def test_every_object_weighs_the_same_in_the_component_averaged_precision(
    tiny_bundle, roads, evaluated, data
):
    smallest = 10  # of the ObstacleTrack and of LostAndFound
    whole, ground = [], []
    for found, labels in detections(tiny_bundle, roads / data):
        surprisal = to_camera(found.surprisal, found.geometry)
        inside = to_camera_nearest(found.scored, found.geometry)
        whole.append(region_image(surprisal, labels, None, smallest))
        ground.append(region_image(surprisal, labels, inside, smallest))
    regions = evaluated[1]['runs'][0]['sets'][data]['regions']
    for region, got in regions.items():
        images = ground if region == 'ground' else whole
        exact = exact_metrics(images).component_average_precision
        low, high = got['bounds']['component_average_precision']
        assert low - 1e-12 <= exact <= high + 1e-12
        assert got['component_average_precision'] == pytest.approx(exact, abs=2e-3)
        assert len(got['intervals']['component_average_precision']) == 2


def test_a_track_gives_its_component_metrics(evaluated, tiny_bundle, roads):
    """Road obstacles have the size limits of the ObstacleTrack: 50 and 10 pixels."""
    found = evaluated[1]['runs'][0]['sets']['road_obstacle_dev']['regions']['road']['components']
    frames = []
    for detection, labels in detections(tiny_bundle, roads / 'road_obstacle_dev'):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        mask = surprisal >= np.float32(found['threshold'])
        frames.append(frame_components(mask, labels, SizeLimits(50, 10)))
    assert found['f1'] == component_metrics(frames)['mean_f1']
    assert found['true'] == 2
    assert 'component F1' in (evaluated[0] / 'index.html').read_text()


def test_components_of_the_ground_leave_out_what_lies_outside(evaluated, tiny_bundle, roads):
    region = evaluated[1]['runs'][0]['sets']['lost_and_found_dev']['regions']['ground']
    frames = []
    for detection, labels in detections(tiny_bundle, roads / 'lost_and_found_dev'):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        inside = to_camera_nearest(detection.scored, detection.geometry)
        mask = surprisal >= np.float32(region['components']['threshold'])
        frames.append(
            frame_components(
                mask, np.where(inside, labels, 255).astype(np.uint8), SizeLimits(50, 10)
            )
        )
        assert not inside.all()
    expected = component_metrics(frames)
    assert region['components']['f1'] == expected['mean_f1']
    assert region['components']['predicted'] == component_counts(frames)['predicted']


def test_objects_are_counted_by_size_and_place(evaluated):
    one = evaluated[1]['runs'][0]['sets']['road_obstacle_dev']
    everything = one['objects']['all'][0]
    assert everything['objects'] == 2
    assert everything['found'] == 2
    assert [row['objects'] for row in one['objects']['size']] == [0, 2, 0, 0]  # one patch: 1 to 4
    assert [row['objects'] for row in one['objects']['place']] == [0, 0, 2]  # lowest row 42 of 56
    lost = evaluated[1]['runs'][0]['sets']['lost_and_found_dev']
    assert lost['objects']['place'][0]['objects'] == 1
    assert lost['regions']['ground']['missed'] >= 14 * 14 * 0.5


def test_every_file_is_there_and_the_page_needs_only_its_folder(evaluated):
    out, values = evaluated
    page = (out / 'index.html').read_text()
    for words in ('How to read this', 'Worst frames', 'Pixels', '<svg'):
        assert words in page
    assert 'http://' not in page.replace('http://www.w3.org', '')
    frames = sorted(path.name for path in (out / 'frames').iterdir())
    assert frames
    assert all(f'frames/{name}' in page for name in frames)
    with (out / 'results.csv').open() as file:
        rows = list(csv.DictReader(file))
    road = values['runs'][0]['sets']['road_obstacle_dev']['regions']['road']
    line = next(r for r in rows if r['region'] == 'road' and r['metric'] == 'average_precision')
    assert float(line['value']) == road['average_precision']
    assert '| tiny | road |' in (out / 'results.md').read_text()
    assert (out / 'images.csv').read_text().count('\n') == 1 + 6
    assert json.loads((out / 'times.json').read_text())['tiny']['road_obstacle_dev']['measure'] > 0


def test_the_same_command_gives_the_same_bytes(tiny_bundle, roads, evaluated, tmp_path):
    evaluate(tiny_bundle, roads, SETS, tmp_path)
    for name in ('results.json', 'results.csv', 'results.md', 'images.csv'):
        assert (tmp_path / name).read_bytes() == (evaluated[0] / name).read_bytes(), name


def test_batches_give_the_same_numbers(tiny_bundle, roads, evaluated, tmp_path):
    got = evaluate(tiny_bundle, roads, SETS, tmp_path, '--batch', '2')
    for data in SETS:
        for region, record in evaluated[1]['runs'][0]['sets'][data]['regions'].items():
            other = got['runs'][0]['sets'][data]['regions'][region]
            assert other['average_precision'] == pytest.approx(record['average_precision'], 1e-4)


def test_what_was_done_is_not_done_again(tiny_bundle, roads, tmp_path, monkeypatch):
    """After a kill only the image that is missing or damaged goes through the engine."""
    first = evaluate(tiny_bundle, roads, SETS, tmp_path)
    records = sorted(tmp_path.glob('images/*/road_obstacle_dev/*.npz'))
    assert len(records) == 3
    records[0].unlink()
    records[1].write_bytes(records[1].read_bytes()[:1000])
    ran = []
    original = Pipeline.run_each

    def counted(self, frames):
        ran.extend(frame.frame_id for frame in frames)
        return original(self, frames)

    monkeypatch.setattr(Pipeline, 'run_each', counted)
    assert evaluate(tiny_bundle, roads, SETS, tmp_path) == first
    assert ran == ['drive_0', 'drive_1']


def test_other_settings_or_images_are_measured_anew(tiny_bundle, roads, tmp_path):
    evaluate(tiny_bundle, roads, SETS[:1], tmp_path, '--limit', '2')
    assert len(list(tmp_path.glob('images/*/*/*.npz'))) == 2
    evaluate(tiny_bundle, roads, SETS[:1], tmp_path, '--limit', '2', '--false-alarm-rate', '0.05')
    assert len(list(tmp_path.glob('images/*/*/*.npz'))) == 4


def damaged(tmp_path):
    folder = tmp_path / 'road_obstacle_dev'
    write_images(folder, anomaly_labels, [BOX, None, BOX, BOX])
    (folder / 'images' / 'drive_1.png').write_bytes(b'\x89PNG not an image')
    cv2.imwrite(str(folder / 'labels' / 'drive_2.png'), np.zeros((HEIGHT, WIDTH // 2), np.uint8))
    return tmp_path


def test_broken_images_are_skipped_counted_and_told(tiny_bundle, tmp_path):
    root, out = damaged(tmp_path / 'data'), tmp_path / 'out'
    got = evaluate(tiny_bundle, root, SETS[:1], out, '--on-error', 'skip', status=3)
    one = got['runs'][0]['sets']['road_obstacle_dev']
    assert [row['name'] for row in one['skipped']] == ['drive_1', 'drive_2']
    assert '42 x 56' in one['skipped'][1]['reason']
    assert one['count'] == one['regions']['road']['images'] == 2
    page = (out / 'index.html').read_text()
    assert 'Skipped images' in page
    assert 'drive_1.png' in page
    assert 'Skipped: drive_1, drive_2' in (out / 'results.md').read_text()


def test_a_broken_image_stops_the_rest_unless_told_otherwise(tiny_bundle, tmp_path, capsys):
    root, out = damaged(tmp_path / 'data'), tmp_path / 'out'
    words = ['evaluate', str(tiny_bundle), '--data', *SETS[:1], '--root', str(root)]
    assert trainer([*words, '--out', str(out), *F32]) == 2
    error = capsys.readouterr().err
    assert 'drive_1.png' in error
    assert '--on-error skip' in error
    assert not (out / 'results.json').exists()


def test_nothing_left_is_an_error(tiny_bundle, tmp_path):
    folder = tmp_path / 'road_obstacle_dev'
    write_images(folder, anomaly_labels, [BOX])
    (folder / 'images' / 'drive_0.png').write_bytes(b'')
    with pytest.raises(DataError, match='no image is left of 1'):
        evaluate(tiny_bundle, tmp_path, SETS[:1], tmp_path / 'out', '--on-error', 'skip')


def test_the_rate_is_counted_per_sequence_and_class(tmp_path):
    bundle = write_tiny_bundle(
        tmp_path / 'bundle',
        classes=datasets.SETS['camvid'].class_map.names,
        compiled_classes=('Road', 'Pavement'),
    )
    folder = tmp_path / 'camvid' / 'test'
    write_images(folder, camvid_labels, [None] * 3, 'a_{}')
    for part in ('images', 'labels'):
        (folder / part / 'a_2.png').rename(folder / part / 'b_2.png')
    got = evaluate(bundle, tmp_path, ['camvid/test'], tmp_path / 'out')
    rows = got['runs'][0]['sets']['camvid/test']['rows']
    assert {row['group'] for row in rows} == {'all', 'a', 'b'}
    assert {row['class_name'] for row in rows} == {'Road', 'pooled'}
    road = [row for row in rows if row['group'] == 'all' and row['class_name'] == 'Road']
    assert [row['target'] for row in road] == [0.01, 0.02, 0.05]
    assert all(row['pixels'] == 3 * HEIGHT * 3 // 4 * WIDTH for row in road)
    on_road = np.concatenate(
        [
            to_camera_nearest(found.surprisal, found.geometry)[labels == 3]
            for found, labels in detections(bundle, folder)
        ]
    )
    flagged = [(on_road >= surprisal_threshold(row['target'])).mean() for row in road]
    assert [row['observed'] for row in road] == pytest.approx(flagged)
    text = (tmp_path / 'out' / 'results.md').read_text()
    cells = [f'{100 * row["observed"]:.2f} [' for row in road]
    (line,) = [line for line in text.splitlines() if line.startswith('| bundle | all | Road |')]
    assert all(cell in line for cell in cells)
    assert line.count('*') == sum(not row['kept'] for row in road)
    assert line.endswith(f'| {road[0]["pixels"]:,} | 3 |')
    assert '| bundle | a | pooled |' in text
    assert '| bundle | a | Road |' not in text  # one sequence's classes are in the CSV


def test_other_classes_have_no_rates(tiny_bundle, tmp_path):
    write_images(tmp_path / 'camvid' / 'test', camvid_labels, [None])
    with pytest.raises(ConfigError, match='need the same classes'):
        evaluate(tiny_bundle, tmp_path, ['camvid/test'], tmp_path / 'out')


def test_unknown_sets_are_named_before_anything_runs(tiny_bundle, tmp_path):
    with pytest.raises(ConfigError, match="unknown set 'streets'; known are"):
        evaluate(tiny_bundle, tmp_path, ['streets'], tmp_path / 'out')


def test_data_must_be_given(tiny_bundle):
    with pytest.raises(ConfigError, match=r'--data is missing; known sets:[\s\S]*road_anomaly'):
        main([str(tiny_bundle)])
