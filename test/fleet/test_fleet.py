# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Many recordings: merged as one long one, failures named, nothing counted or done twice."""

import csv
import json

import pytest

pytest.importorskip('rosbags')

from bag_files import write_bag
from bundles import write_tiny_bundle
from recordings import TRUTH, cut, messages, write_fleet

from ood_perception.cli.evaluate_bag import FAILED, FINE, WITH_SKIPPED, evaluate_bag


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundles') / 'tiny', height=98, width=126)


@pytest.fixture
def run(bundle, tmp_path, capsys):
    def call(*words, out='out'):
        fixed = ['--bundle', bundle, '--threads', '1', '--roi-mode', 'none']
        fixed += ['--engine', 'openvino', '--precision', 'f32', '--out', tmp_path / out]
        status = evaluate_bag([*map(str, words), *map(str, fixed)])
        printed = capsys.readouterr()
        return status, tmp_path / out, printed.out + printed.err

    return call


def report_of(folder):
    return json.loads((folder / 'report.json').read_text())


def entries(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / 'ledger').iterdir())
            if path.suffix == '.json']  # fmt: skip


def test_recordings_merge_as_one_long_recording(run, tmp_path):
    write_fleet(tmp_path / 'fleet', 3)
    everything = [one for seed in range(3) for one in messages(seed, 4, first=4 * seed)]
    whole = write_bag(tmp_path / 'whole', everything)
    status, folder, _ = run(tmp_path / 'fleet', '--ground-truth', TRUTH)
    assert status == FINE
    _, single, _ = run(whole, '--ground-truth', TRUTH, out='single')
    merged, expected = report_of(folder), report_of(single)
    (truth,), (other,) = merged['ground_truth'].values(), expected['ground_truth'].values()
    assert truth['frames'] == 12
    assert truth['anomaly_pixels'] > 0
    for part in ('metrics', 'bounds'):
        for name, value in other[part].items():
            assert truth[part][name] == pytest.approx(value, abs=1e-12)
    (camera,), (row,) = merged['cameras'], expected['cameras']
    for name in ('messages', 'evaluated', 'obstacles', 'frames_with_obstacles', 'labelled'):
        assert camera[name] == row[name]
    for name in ('scored_share', 'flagged_share_of_scored'):
        assert camera[name] == pytest.approx(row[name], abs=1e-12)


def test_a_damaged_recording_is_named_counts_nowhere_and_is_tried_again(run, tmp_path):
    files = write_fleet(tmp_path / 'fleet', 3)
    content = files[1].read_bytes()
    cut(files[1])
    status, folder, printed = run(tmp_path / 'fleet')
    assert status == WITH_SKIPPED
    report = report_of(folder)
    assert (report['recordings'], report['done']) == (3, 2)
    assert report['cameras'][0]['evaluated'] == 8
    (failed,) = report['failed']
    assert failed['recording'] == str(files[1].parent)
    assert 'damaged' in failed['reason']
    assert failed['recording'] in printed
    assert failed['recording'] in (folder / 'index.html').read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.glob('recordings/*/report.json')}
    files[1].write_bytes(content)
    assert run(tmp_path / 'fleet')[0] == FINE
    assert report_of(folder)['cameras'][0]['evaluated'] == 12
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_and_changed_recordings_are_evaluated_again(run, tmp_path):
    files = write_fleet(tmp_path / 'fleet', 2)
    run(tmp_path / 'fleet')
    first = report_of(tmp_path / 'out')
    assert '2 of them done before' in run(tmp_path / 'fleet')[2]
    assert report_of(tmp_path / 'out') == first
    assert '0 of them done before' in run(tmp_path / 'fleet', '--false-alarm-rate', '0.1')[2]
    write_bag(tmp_path / 'other', messages(7, 6))
    files[0].write_bytes(next((tmp_path / 'other').glob('*.mcap')).read_bytes())
    words = (tmp_path / 'fleet', '--false-alarm-rate', '0.1')
    assert '1 of them done before' in run(*words)[2]


def test_frames_that_are_worth_a_label_are_collected(run, bundle, tmp_path):
    write_fleet(tmp_path / 'fleet', 2)
    other = write_tiny_bundle(tmp_path / 'other', height=98, width=126, seed=3)
    status, folder, _ = run(tmp_path / 'fleet', '--mine', '1', '--adapted', other)
    assert status == FINE
    with (folder / 'to_label' / 'frames.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['reason'] for row in rows} >= {'highest'}
    assert sum(row['reason'] == 'highest' for row in rows) == 2
    for row in rows:
        assert (folder / 'to_label' / row['file']).stat().st_size > 0
    assert run(tmp_path / 'fleet', '--mine', '0')[0] == FINE
    assert [path.name for path in (folder / 'to_label').iterdir()] == ['frames.csv']


def test_a_second_bundle_may_have_another_grid(run, tmp_path):
    write_fleet(tmp_path / 'fleet', 1)
    other = write_tiny_bundle(tmp_path / 'other', in_distribution=('Sky',), upsampling=1)
    status, folder, _ = run(tmp_path / 'fleet', '--mine', '1', '--adapted', other)
    assert status == FINE
    assert any(one.name.startswith('disagreement_') for one in folder.rglob('*.png'))


def test_words_that_mean_recordings(run, tmp_path):
    files = write_fleet(tmp_path / 'fleet', 3)
    pattern = tmp_path / 'fleet' / 'drive_0[01]' / '*.mcap'
    assert run(pattern)[0] == FINE
    assert report_of(tmp_path / 'out')['recordings'] == 2
    named = tmp_path / 'list.txt'
    named.write_text(f'# three\n{files[0]}\n{files[2]}\n{files[0].parent}\n')
    run(named, out='listed')
    places = {row['recording'] for row in report_of(tmp_path / 'listed')['rows']}
    assert places == {str(files[0]), str(files[2]), str(files[0].parent)}


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['nothing*'], 'no recording is there'),
        (['a', 'missing'], 'missing does not exist'),
        (['a', 'b', '--rrd'], 'no result bags'),
        (['a', 'b', '--workers', '-1'], 'give 0 or more'),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    for name in 'ab':
        write_bag(tmp_path / name, messages(0, 1))
    status, _, printed = run(*words)
    assert status == FAILED
    assert expected in printed
    assert 'Traceback' not in printed


def test_results_never_replace_other_files(run, tmp_path):
    write_fleet(tmp_path / 'fleet', 2)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.tex').write_text('x')
    status, _, printed = run(tmp_path / 'fleet')
    assert (status, 'holds other files' in printed) == (FAILED, True)
