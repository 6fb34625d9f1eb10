# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""trainer operating-point from images to answer, on roads whose false obstacles are planted."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')
yaml = pytest.importorskip('yaml')
from bundles import road_image  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.__main__ import main as trainer_main  # noqa: E402
from trainer.evaluation.operating_point import main, usual_areas  # noqa: E402

HEIGHT, WIDTH = 56, 84
BOX = (42, 28, 14, 14)  # x, y, width, height: one patch
GRID = ['--rates', '0.05', '0.01', '--areas', '0', '5000', '--engine', 'onnxruntime']


def write(folder, planted, seed=0, labels=None):
    """Write one road image per entry of `planted`, those that are true with an odd square."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number, odd in enumerate(planted):
        photo = road_image(HEIGHT, WIDTH, BOX if odd else None, seed=seed + number)
        cv2.imwrite(str(folder / 'images' / f'a_{number:04}.png'), photo[..., ::-1])
        truth = np.zeros((HEIGHT, WIDTH), np.uint8) if labels is None else labels
        cv2.imwrite(str(folder / 'labels' / f'a_{number:04}.png'), truth)
    return folder / 'images'


def run(bundle, source, out, *more):
    """Return the exit status and the JSON report."""
    status = main([str(bundle), '--clean', str(source), *GRID, '--out', str(out), *more])
    return status, json.loads((out / 'operating_point.json').read_text())


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    """Fifty frames, five blocks of ten; one frame of five in the first block is planted."""
    planted = [number in (1, 4) for number in range(50)]
    return write(tmp_path_factory.mktemp('clean'), planted)


def test_planted_obstacles_are_counted_and_the_answer_can_be_pasted(
    tiny_bundle, clean, tmp_path, capsys
):
    status, got = run(tiny_bundle, clean, tmp_path, '--wanted', '0.5/frame')
    assert status == 0
    np.testing.assert_allclose(got['rates']['mean'], [[2 / 50, 0], [2 / 50, 0]])
    assert got['rates']['frames'] == 50
    assert got['rates']['blocks'] == 5
    assert got['recommended']['rate'] == 0.05
    assert got['recommended']['area'] == 0
    text = capsys.readouterr().out
    start = text.index('/**:')
    pasted = yaml.safe_load(text[start : text.index('report:')])['/**']['ros__parameters']
    assert pasted == {'false_alarm_rate': 0.05, 'minimum_area': 0.0}
    assert all(isinstance(value, float) for value in pasted.values()), 'ROS wants doubles'
    report = (tmp_path / 'operating_point.md').read_text()
    assert '0.04 (0.19)' in report, 'two alarms in one block: 4.74 blocks of 2, of 50 frames'


def test_a_stricter_wish_takes_the_area_that_keeps_it(tiny_bundle, tmp_path):
    planted = [True] * 20 + [False] * 400
    images = write(tmp_path / 'clean', planted)
    status, got = run(
        tiny_bundle, images, tmp_path / 'out', '--wanted', '0.01/frame', '--block', '1'
    )
    assert status == 0
    assert [choice['area'] for choice in got['choices']] == [5000]
    assert 'removes objects that the head finds' in got['answer']


def test_what_cannot_be_rated_is_said_with_the_frames_that_it_takes(
    tiny_bundle, clean, tmp_path, capsys
):
    status, got = run(tiny_bundle, clean, tmp_path)  # 1/hour from five seconds
    assert status == 1
    assert got['recommended'] is None
    text = capsys.readouterr().out
    assert 'cannot be stated from 50 clean frames' in text
    assert '1078464 clean frames are needed' in text, '2.9957 * 10 * 36000'
    assert '107847 frames do' in text
    # one block alarmed, of two false obstacles: 4.7439 * 2 / 50 frames, of 36000 an hour
    assert '6831 per hour' in text


def test_an_obstacle_that_lasts_counts_once_with_persistence(tiny_bundle, tmp_path):
    planted = [5 <= number < 15 or number == 30 for number in range(40)]
    images = write(tmp_path / 'clean', planted)
    wish = ['--wanted', '3/second', '--persistence']
    _, anew = run(tiny_bundle, images, tmp_path / 'a', '--wanted', '3/second')
    _, once = run(tiny_bundle, images, tmp_path / 'b', *wish, '1', '5')
    _, held = run(tiny_bundle, images, tmp_path / 'c', *wish, '3', '5')
    assert [got['rates']['mean'][1][0] * 40 for got in (anew, once, held)] == [11, 2, 1]
    assert yaml.safe_load(held['answer'][held['answer'].index('/**:') :])['/**'][
        'ros__parameters'
    ]['persistence'] == {'window': 5, 'required': 3}


def test_labels_leave_known_classes_out(tiny_bundle, tmp_path):
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y, width, height = BOX
    truth[y - 14 : y + height + 14, x - 14 : x + width + 14] = 2  # by the labels no road there
    images = write(tmp_path / 'clean', [True] * 12, labels=truth)
    _, without = run(tiny_bundle, images, tmp_path / 'a', '--wanted', '9/frame')
    _, with_labels = run(
        tiny_bundle, images, tmp_path / 'b', '--wanted', '9/frame',
        '--labels', str(tmp_path / 'clean' / 'labels'),
    )  # fmt: skip
    assert without['rates']['mean'][1][0] == 1
    assert with_labels['rates']['mean'][1][0] == 0


def test_held_out_frames_are_set_against_the_prediction(tiny_bundle, clean, tmp_path):
    other = write(tmp_path / 'other', [number % 4 == 0 for number in range(40)], seed=500)
    _, got = run(
        tiny_bundle, clean, tmp_path / 'out', '--wanted', '0.5/frame', '--check', str(other)
    )
    assert got['check']['mean'][0][0] == pytest.approx(0.25)
    report = (tmp_path / 'out' / 'operating_point.md').read_text()
    assert '| 0.05 | 0 | 0.04 (0.19) | 0.25 [' in report
    assert '| no |' in report, 'the rate was exceeded, and the report says so'


def test_a_bag_gives_the_same_counts_as_its_images(tiny_bundle, clean, tmp_path):
    pytest.importorskip('rosbags')
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types['sensor_msgs/msg/CompressedImage']
    header, time = store.types['std_msgs/msg/Header'], store.types['builtin_interfaces/msg/Time']
    with Writer(tmp_path / 'bag', version=9) as writer:
        connection = writer.add_connection('/cam/compressed', kind.__msgtype__, typestore=store)
        for number, path in enumerate(sorted(clean.iterdir())):
            stamp = 10**9 + number * 50_000_000
            data = np.frombuffer(path.read_bytes(), np.uint8)
            head = header(stamp=time(sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id='cam')
            message = kind(header=head, format='rgb8; png compressed bgr8', data=data)
            writer.write(connection, stamp, store.serialize_cdr(message, kind.__msgtype__))
    wish = ['--wanted', '20/second']
    _, of_bag = run(tiny_bundle, tmp_path / 'bag', tmp_path / 'a', *wish)
    _, of_images = run(tiny_bundle, clean, tmp_path / 'b', *wish)
    assert of_bag['fps'] == pytest.approx(20)
    assert of_bag['rates']['mean'] == of_images['rates']['mean']
    with pytest.raises(ConfigError, match='a bag, which has no labels'):
        run(tiny_bundle, tmp_path / 'bag', tmp_path / 'c', '--labels', str(clean))


PARAMETERS = """
/**:
  ros__parameters:
    engine: onnxruntime
    hysteresis_rate: {hysteresis}
    roi:
      mode: {mode}
      polygons: {polygons}
      ignore_polygons: {ignored}
"""


def parameter_file(path, hysteresis=0.0, mode='ground', polygons='', ignored=''):
    """Write a parameter file of the node."""
    path.write_text(PARAMETERS.format(
        hysteresis=hysteresis, mode=mode, polygons=[polygons], ignored=[ignored]
    ))  # fmt: skip
    return '--params', str(path)


BONNET = '0.5,0.5 0.67,0.5 0.67,0.75 0.5,0.75'  # BOX as shares of the image
ELSEWHERE = '0,0.5 0.3,0.5 0.3,1 0,1'


@pytest.mark.parametrize(
    ('words', 'count'),
    [
        ({}, 2),
        ({'ignored': BONNET}, 0),
        ({'ignored': ELSEWHERE}, 2),
        ({'mode': 'polygon', 'polygons': ELSEWHERE}, 0),
    ],
)
def test_the_nodes_polygons_decide_what_counts(tiny_bundle, clean, tmp_path, words, count):
    given = parameter_file(tmp_path / 'node.yaml', **words)
    _, got = run(tiny_bundle, clean, tmp_path / 'out', '--wanted', '9/frame', *given)
    assert got['rates']['mean'][1][0] * 50 == pytest.approx(count)
    assert got['roi'] == words.get('mode', 'ground')


def test_polygons_of_a_named_camera_hold_for_its_images(tiny_bundle, clean, tmp_path):
    given = parameter_file(tmp_path / 'node.yaml', ignored=f'front: {BONNET}')
    wish = ['--wanted', '9/frame', *given]
    with pytest.raises(ConfigError, match=r"cameras \['front'\]: say with --camera"):
        run(tiny_bundle, clean, tmp_path / 'out', *wish)
    with pytest.raises(ConfigError, match=r"--camera rear: --params names \['front'\]"):
        run(tiny_bundle, clean, tmp_path / 'out', *wish, '--camera', 'rear')
    _, got = run(tiny_bundle, clean, tmp_path / 'out', *wish, '--camera', 'front')
    assert got['rates']['mean'][1][0] == 0


def test_hysteresis_removes_what_is_nowhere_anomalous_enough(tiny_bundle, tmp_path):
    """A pale square: surprisal 2.9 at its highest-scoring cell, (9/16)^2 of that of its colour."""
    images = tmp_path / 'clean' / 'images'
    images.mkdir(parents=True)
    for number in range(10):
        photo = road_image(HEIGHT, WIDTH, BOX, color=(230, 200, 200), seed=number)
        cv2.imwrite(str(images / f'a_{number:04}.png'), photo[..., ::-1])
    counts = {}
    for rate in (0.0, 0.005, 1e-6):
        given = parameter_file(tmp_path / f'{rate}.yaml', hysteresis=f'{rate:.7f}')
        status, got = run(tiny_bundle, images, tmp_path / f'{rate}', '--wanted', '9/frame', *given)
        assert status == 0
        counts[rate] = got['rates']['mean'][1][0]
        pasted = yaml.safe_load(got['answer'][got['answer'].index('/**:') :])
        assert pasted['/**']['ros__parameters'].get('hysteresis_rate', 0.0) == rate
    assert counts == {0.0: 1, 0.005: 1, 1e-6: 0}


def test_the_command_line_comes_before_the_file(tiny_bundle, clean, tmp_path):
    given = parameter_file(tmp_path / 'node.yaml', mode='labels')
    _, got = run(
        tiny_bundle, clean, tmp_path / 'out', '--wanted', '9/frame', *given, '--roi', 'none'
    )
    assert got['roi'] == 'none'


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--clean', 'nowhere'], 'camvid/<split>'),
        (['--clean', '{clean}', '--labels'], 'folder of its labels'),
        (['--clean', '{clean}', '--wanted', 'seldom'], '1/hour'),
        (['--clean', '{clean}', '--persistence', '4', '3'], 'persistence 4 of 3'),
        (['--clean', '{clean}', '--block', '0'], 'block of 0'),
        (['--clean', '{clean}', '--fps', '-3'], '--fps -3'),
        (['--clean', '{clean}', '--rates', '1.5'], 'inside'),
    ],
)
def test_mistakes_are_one_line_and_leave_no_report(
    tiny_bundle, clean, tmp_path, capsys, arguments, text
):
    words = [word.format(clean=clean) for word in arguments]
    out = tmp_path / 'out'
    command = ['operating-point', str(tiny_bundle), *words, '--out', str(out)]
    assert trainer_main([*command, '--engine', 'onnxruntime']) == 2
    error = capsys.readouterr().err
    assert text in error
    assert 'Traceback' not in error
    assert not out.exists()


def test_usual_areas_are_shares_of_a_patch():
    assert usual_areas(177.8) == (0, 44, 89, 180, 360, 710, 1400)
