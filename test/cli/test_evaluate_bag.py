# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bag through the node's pipeline: lossless, the same bytes twice, every error counted."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags')

from bag_files import (
    COMPRESSED,
    DELAY,
    FRONT,
    LEFT,
    RAW,
    START,
    Maker,
    pixels,
    read_bag,
    stamp_of,
    storage_file,
    two_cameras,
    write_bag,
)
from bundles import road_image, write_tiny_bundle
from label_files import png_of
from paths import ROOT, need_data

from ood_perception.bundle.store import load_bundle
from ood_perception.cli.evaluate_bag import FAILED, FINE, WITH_SKIPPED, evaluate_bag
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.image.views import ViewSpec
from ood_perception.metrics.pixel import exact_metrics, scored_image
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.settings import Settings
from ood_perception.types import Frame


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundles') / 'tiny', height=98, width=126)


@pytest.fixture
def run(bundle, tmp_path, capsys):
    """Run the program; return (exit status, the folder of results, what it printed)."""

    def call(bag, *options, out='out'):
        arguments = [str(bag), '--bundle', str(bundle), '--threads', '1', '--roi-mode', 'none']
        folder = tmp_path / out
        status = evaluate_bag([*arguments, '--out', str(folder), *map(str, options)])
        printed = capsys.readouterr()
        assert not list(tmp_path.glob('.*')), 'temporary files were left behind'
        return status, folder, printed.out + printed.err

    return call


def report_of(folder):
    return json.loads((folder / 'report.json').read_text())


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def expected_maps(bundle, frames, mode='none', **more):
    """Return the pipeline's own maps of frames, made without any of the code under test."""
    loaded = load_bundle(bundle)
    options = EngineOptions(threads=1, compiled_classes=loaded.manifest.in_distribution)
    with create_engine(loaded, options) as engine:
        pipeline = Pipeline(loaded, engine, Settings(roi=RoiSettings(mode=mode), **more))
        return [OutputMaps(detection) for detection in pipeline.run(frames)]


def decoded(messages, topic):
    """Return the images of a topic's messages, decoded by OpenCV alone."""
    store = Maker().store
    for name, kind, time, data in messages:
        message = store.deserialize_cdr(data, kind) if name == topic else None
        if message is not None and kind == RAW:
            yield message, time, message.data.reshape(message.height, message.width, 3)
        elif message is not None:
            yield message, time, cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1].copy()


def test_the_report_is_printed_as_json(bundle, tmp_path, capsys):
    bag = write_bag(tmp_path / 'bag', two_cameras())
    words = [str(bag), '--bundle', str(bundle), '--threads', '1', '--out', str(tmp_path / 'out')]
    assert evaluate_bag([*words, '--json']) == FINE
    assert json.loads(capsys.readouterr().out) == report_of(tmp_path / 'out')


@pytest.mark.parametrize(('storage', 'mode'), [('mcap', 'none'), ('sqlite3', 'ground')])
def test_every_frame_comes_back_with_its_stamp_and_the_pipelines_numbers(
    run, bundle, tmp_path, storage, mode
):
    messages = two_cameras()
    bag = write_bag(tmp_path / 'bag', messages)
    status, folder, _ = run(bag, '--storage', storage, '--roi-mode', mode)
    assert status == FINE
    results = read_bag(folder / 'result')
    assert len(results) == 6
    obstacles = 0
    for camera, topic in (('front', FRONT), ('left', LEFT)):
        inputs = list(decoded(messages, topic))
        maps = expected_maps(bundle, [Frame(image, camera) for _, _, image in inputs], mode)
        outputs = {
            name: results[f'/road_anomaly/{camera}/{name}']
            for name in ('score', 'mask', 'obstacles')
        }
        for number, (message, time, _) in enumerate(inputs):
            for rows in outputs.values():
                assert rows[number][0] == time
                assert stamp_of(rows[number][1]) == stamp_of(message) == time - DELAY
                assert rows[number][1].header.frame_id == message.header.frame_id
            mask, score = (outputs[name][number][1] for name in ('mask', 'score'))
            assert (mask.encoding, score.encoding) == ('mono8', '32FC1')
            np.testing.assert_array_equal(pixels(mask), maps[number].image('mask'))
            np.testing.assert_array_equal(pixels(score), maps[number].image('score'))
            assert np.isnan(pixels(score)).any() == (mode == 'ground')
            found = outputs['obstacles'][number][1].detections
            wanted = maps[number].detection.obstacles
            obstacles += len(wanted)
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                assert one.bbox.size_x == other.width
                assert one.bbox.center.position.y == other.y + other.height / 2 - 0.5
                assert one.results[0].hypothesis.class_id == 'obstacle'
                assert one.results[0].hypothesis.score == pytest.approx(1 - 10**-other.surprisal)
    assert obstacles >= 4, 'the bag should hold obstacles'


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_twice_the_same_bag_gives_the_same_files(run, tmp_path, storage):
    bag = write_bag(tmp_path / 'bag', two_cameras())
    first, second = (run(bag, '--storage', storage, out=name)[1] for name in ('first', 'second'))
    assert files_of(first) == files_of(second)
    assert len(files_of(first)) == 5


@pytest.mark.parametrize('options', [('--batch', '3'), ('--no-views',)])
def test_further_views_are_seen_as_the_pipeline_sees_them(run, tmp_path, options):
    path = write_tiny_bundle(tmp_path / 'seen', height=98, width=126, views=(ViewSpec('far'),))
    messages = two_cameras()
    status, folder, _ = run(write_bag(tmp_path / 'bag', messages), '--bundle', path, *options)
    assert status == FINE
    views = '--no-views' not in options
    assert report_of(folder)['model']['settings']['views'] is views
    results = read_bag(folder / 'result')
    for camera, topic in (('front', FRONT), ('left', LEFT)):
        frames = [Frame(image, camera) for _, _, image in decoded(messages, topic)]
        wanted = expected_maps(path, frames, views=views)
        other = expected_maps(path, frames, views=not views)
        scores = [pixels(row[1]) for row in results[f'/road_anomaly/{camera}/score']]
        for score, maps, unlike in zip(scores, wanted, other, strict=True):
            np.testing.assert_array_equal(score, maps.image('score'))
            assert (score != unlike.image('score')).any()


def test_batches_storage_and_compression_of_the_input_change_no_result(run, tmp_path):
    messages, results = two_cameras(5), []
    for number, (storage, compression, batch) in enumerate(
        [('mcap', 'none', 1), ('sqlite3', 'message', 3), ('mcap', 'file', 4)]
    ):
        bag = write_bag(tmp_path / f'bag_{number}', messages, storage, compression)
        status, folder, _ = run(bag, '--batch', batch, out=f'out_{number}')
        assert status == FINE
        results.append(files_of(folder / 'result'))
    assert results[0] == results[1] == results[2]


def test_another_reader_opens_the_result(run, tmp_path):
    """The MCAP project's own reader: chunks, checksums, schemas, indexes, statistics."""
    reader = pytest.importorskip('mcap.reader')
    messages = two_cameras()
    _, folder, _ = run(write_bag(tmp_path / 'bag', messages))
    with (folder / 'result' / 'result.mcap').open('rb') as file:
        opened = reader.make_reader(file, validate_crcs=True)
        assert opened.get_header().profile == 'ros2'
        summary = opened.get_summary()
        schemas = {schema.name: schema for schema in summary.schemas.values()}
        assert set(schemas) == {RAW, 'vision_msgs/msg/Detection2DArray'}
        for schema in schemas.values():
            assert schema.encoding == 'ros2msg'
        text = schemas['vision_msgs/msg/Detection2DArray'].data.decode()
        for part in ('vision_msgs/Detection2D', 'vision_msgs/Point2D', 'geometry_msgs/Quaternion'):
            assert f'MSG: {part}\n' in text
        assert {c.message_encoding for c in summary.channels.values()} == {'cdr'}
        assert summary.statistics.message_count == 3 * len(messages)
        times = [message.log_time for _, _, message in opened.iter_messages()]
    assert times == [time for *_, time, _ in messages for _ in range(3)]


def test_the_metadata_says_what_is_in_the_bag(run, tmp_path):
    yaml = pytest.importorskip('yaml')
    messages = two_cameras()
    _, folder, _ = run(write_bag(tmp_path / 'bag', messages))
    content = yaml.safe_load((folder / 'result' / 'metadata.yaml').read_text())
    content = content['rosbag2_bagfile_information']
    assert content['storage_identifier'] == 'mcap'
    assert content['relative_file_paths'] == ['result.mcap']
    assert content['message_count'] == 3 * len(messages)
    assert content['starting_time']['nanoseconds_since_epoch'] == messages[0][2]
    assert content['duration']['nanoseconds'] == messages[-1][2] - messages[0][2]
    rows = content['topics_with_message_count']
    assert {row['topic_metadata']['name'] for row in rows} == {
        f'/road_anomaly/{camera}/{name}'
        for camera in ('front', 'left')
        for name in ('score', 'mask', 'obstacles')
    }
    for row in rows:
        assert row['message_count'] == 4
        assert row['topic_metadata']['serialization_format'] == 'cdr'
        assert row['topic_metadata']['type_description_hash'].startswith('RIHS01_')
        # rosbag2 before version 9 of the file: a YAML text, enumerations as numbers
        (quality,) = yaml.safe_load(row['topic_metadata']['offered_qos_profiles'])
        assert (quality['history'], quality['reliability'], quality['durability']) == (1, 1, 2)
        assert quality['deadline'] == {'sec': 9223372036, 'nsec': 854775807}


def test_the_report_counts_and_the_page_can_be_read(run, tmp_path):
    status, folder, printed = run(write_bag(tmp_path / 'bag', two_cameras(6), 'mcap', 'message'))
    assert status == FINE
    report, results = report_of(folder), read_bag(folder / 'result')
    assert report['bag']['message_compression'].startswith('zstd, 12 of 12 messages (metadata')
    for camera in report['cameras']:
        assert (camera['messages'], camera['evaluated'], camera['skipped']) == (6, 6, 0)
        rows = results[f'/road_anomaly/{camera["camera"]}/obstacles']
        found = [len(message.detections) for _, message in rows]
        assert camera['obstacles'] == sum(found) > 6
        assert camera['frames_with_obstacles'] == sum(map(bool, found))
        assert camera['obstacles_per_minute'] == pytest.approx(60 * camera['obstacles'] / 0.5)
    assert report['problems']['counts'] == {}
    rows = list(csv.DictReader((folder / 'frames.csv').open()))
    assert [(row['camera'], int(row['index'])) for row in rows] == [
        (camera, index) for index in range(6) for camera in ('front', 'left')
    ]
    assert int(rows[0]['log_time_ns']) - int(rows[0]['stamp_ns']) == DELAY
    page = ' '.join((folder / 'index.html').read_text().split())
    for words in (
        '12 of 12 frames',
        FRONT,
        'The highest-scoring frames',
        'data:image/jpeg',
        'tiny',
    ):
        assert words in page
    assert '12 frames in' in printed


def test_the_foreign_bag_is_replayed(run, tmp_path):
    bag = need_data('bags') / 'amber_soccer_goal_12.mcap'
    first = run(bag, out='first')
    second = run(bag, out='second')
    assert (first[0], second[0]) == (FINE, FINE)
    assert files_of(first[1]) == files_of(second[1])
    report = report_of(first[1])
    assert report['cameras'][0]['evaluated'] == 2
    assert report['cameras'][0]['sizes'] == ['640x480']
    assert 'reported by the first bytes' in report['bag']['message_compression']
    results = read_bag(first[1] / 'result')
    assert [time for time, _ in results['/road_anomaly/mask']] == [8297777777, 8331088888]


@pytest.mark.data
def test_camvid_images_in_a_bag_are_replayed_to_the_same_bytes(run, tmp_path):
    folder = need_data('camvid', 'test', 'images')
    files = sorted(folder.iterdir())[:4]
    images = [cv2.imread(str(file))[..., ::-1] for file in files]
    bag = write_bag(tmp_path / 'bag', two_cameras(4, images), 'mcap', 'message')
    first, second = (run(bag, out=name) for name in ('first', 'second'))
    assert (first[0], second[0]) == (FINE, FINE)
    assert files_of(first[1]) == files_of(second[1])
    assert [row['evaluated'] for row in report_of(first[1])['cameras']] == [4, 4]


# --- ground truth ------------------------------------------------------------------------------


def labelled(count=6):
    """Return (messages with label topic, images, labels); odd frames hold an anomaly."""
    maker, messages, images, labels = Maker(), [], [], []
    for number in range(count):
        box = (60, 50, 24, 20) if number % 2 else None
        image, label = road_image(96, 128, box, seed=number), np.zeros((96, 128), np.uint8)
        label[:24] = 255
        if box:
            label[50:70, 60:84] = 1
        stamp = START + number * 100_000_000
        messages.append((FRONT, RAW, stamp + DELAY, maker.raw(image, 'rgb8', stamp)))
        images.append(image)
        labels.append(label)
    for number, label in enumerate(labels):  # labelled after the recording
        stamp = START + number * 100_000_000
        later = START + 10**10 + number
        messages.append(('/labels', RAW, later, maker.raw(label, 'mono8', stamp)))
    return messages, images, labels


def check_metrics(report, bundle, images, labels):
    """Compare with the exact metrics of the pipeline's own surprisal."""
    maps = expected_maps(bundle, [Frame(image) for image in images])
    exact = exact_metrics(
        [scored_image(m.image('surprisal'), label) for m, label in zip(maps, labels, strict=True)]
    )
    record = report['ground_truth']['']
    assert record['frames'] == len(labels)
    assert record['anomaly_pixels'] == sum(int((label == 1).sum()) for label in labels)
    for name in ('average_precision', 'auroc', 'fpr95'):
        least, most = record['bounds'][name]
        assert least - 1e-12 <= getattr(exact, name) <= most + 1e-12
        assert record['metrics'][name] == pytest.approx(getattr(exact, name), abs=1e-3)
        low, high = record['intervals'][name]
        assert low <= record['metrics'][name] <= high
    assert exact.average_precision > 0.5, 'the case should not be trivial'


@pytest.mark.parametrize('kind', ['raw', 'png', 'palette'])
def test_a_label_topic_gives_the_metrics(run, bundle, tmp_path, kind):
    messages, images, labels = labelled()
    if kind != 'raw':
        maker, palette = Maker(), kind == 'palette'
        messages = [
            (topic, COMPRESSED, time, maker.compressed(
                png_of(labels[(time - START) % 10], palette=palette), '.png',
                START + (time - START) % 10 * 10**8))
            if topic == '/labels' else (topic, kind_, time, data)
            for topic, kind_, time, data in messages
        ]  # fmt: skip
    bag = write_bag(tmp_path / 'bag', messages)
    status, folder, _ = run(bag, '--ground-truth', '/labels')
    assert status == FINE
    report = report_of(folder)
    assert [camera['topic'] for camera in report['cameras']] == [FRONT]
    check_metrics(report, bundle, images, labels)
    assert 'Against the ground truth' in (folder / 'index.html').read_text()


@pytest.mark.parametrize('named_by', ['stamp', 'seconds', 'index'])
def test_a_label_folder_gives_the_metrics(run, bundle, tmp_path, named_by):
    messages, images, labels = labelled()
    (tmp_path / 'labels').mkdir()
    for number, label in enumerate(labels):
        stamp = START + number * 100_000_000
        name = {
            'stamp': f'{stamp}', 'index': f'{number:06d}',
            'seconds': f'{stamp // 10**9}_{stamp % 10**9:09d}',
        }[named_by]  # fmt: skip
        cv2.imwrite(str(tmp_path / 'labels' / f'{name}.png'), label)
    bag = write_bag(tmp_path / 'bag', [m for m in messages if m[0] == FRONT])
    _, folder, _ = run(bag, '--ground-truth', tmp_path / 'labels')
    check_metrics(report_of(folder), bundle, images, labels)


@pytest.mark.parametrize(('bits', 'palette'), [(1, False), (4, True), (2, False)])
def test_labels_of_few_bits_are_ids(run, tmp_path, bits, palette):
    messages, _, labels = labelled()
    labels = [(label == 1).astype(np.uint8) for label in labels]
    (tmp_path / 'labels').mkdir()
    for number, label in enumerate(labels):
        (tmp_path / f'labels/{number:06d}.PNG').write_bytes(png_of(label, bits, palette))
    (tmp_path / 'labels/._000000.PNG').write_bytes(b'hidden')
    bag = write_bag(tmp_path / 'bag', [m for m in messages if m[0] == FRONT])
    status, folder, _ = run(bag, '--ground-truth', tmp_path / 'labels')
    assert status == FINE
    record = report_of(folder)['ground_truth']['']
    assert record['frames'] == len(labels)
    assert record['anomaly_pixels'] == sum(int(label.sum()) for label in labels) > 0


@pytest.mark.parametrize('anomaly', [0, 255])
@pytest.mark.parametrize('place', ['folder', 'topic'])
def test_labels_without_an_anomaly_are_refused_before_the_replay(run, tmp_path, anomaly, place):
    messages, _, labels = labelled()
    frames, maker = [m for m in messages if m[0] == FRONT], Maker()
    (tmp_path / 'labels').mkdir()
    for number, label in enumerate(labels):
        mask = (label == 1).astype(np.uint8) * anomaly
        (tmp_path / f'labels/{number}.png').write_bytes(png_of(mask))
        stamp = START + number * 10**8
        labels[number] = ('/labels', RAW, stamp, maker.raw(mask, 'mono8', stamp))
    recorded = [*frames, *labels] if place == 'topic' else frames
    bag = write_bag(tmp_path / 'bag', recorded)
    truth = tmp_path / 'labels' if place == 'folder' else '/labels'
    status, folder, printed = run(bag, '--ground-truth', truth)
    assert status == FAILED
    assert 'none of 6 label images has a pixel of anomaly (1)' in printed
    assert ('255 means ignored' in printed) == (anomaly == 255)
    assert not folder.exists()


def test_labels_that_do_not_fit_are_counted(run, tmp_path):
    messages, _, labels = labelled()
    maker = Maker()
    wrong = [
        maker.raw(labels[0][:50], 'mono8', START),
        maker.raw(np.zeros((96, 128, 3), np.uint8), 'rgb8', START + 10**8),
        b'\0\1\0\0 no message',
    ]
    for number, data in enumerate(wrong):
        messages[6 + number] = ('/labels', RAW, START + 10**10 + number, data)
    status, folder, printed = run(
        write_bag(tmp_path / 'bag', messages), '--ground-truth', '/labels'
    )
    assert status == WITH_SKIPPED
    report = report_of(folder)
    assert report['problems']['counts'] == {'ground truth does not fit': 3}
    assert report['ground_truth']['']['frames'] == 3
    assert "encoding 'rgb8'" in printed
    assert '(50, 128)' in printed


def test_two_cameras_with_labels_each(run, tmp_path):
    messages = two_cameras()
    for camera in ('front', 'left'):
        (tmp_path / 'labels' / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'labels' / camera / '1.png'), np.ones((96, 128), np.uint8))
    bag = write_bag(tmp_path / 'bag', messages)
    _, folder, _ = run(bag, '--ground-truth', tmp_path / 'labels')
    truth = report_of(folder)['ground_truth']
    assert {camera: record['frames'] for camera, record in truth.items()} == {
        'front': 1,
        'left': 1,
    }
    status, _, printed = run(bag, '--ground-truth', tmp_path / 'labels' / 'front', out='b')
    assert status == FAILED
    assert 'say for which camera' in printed


# --- what goes wrong ---------------------------------------------------------------------------


def damaged(kind):
    """Return two cameras' messages, one of which is damaged, and the words that name it."""
    messages, maker = two_cameras(), Maker()
    topic, msgtype, time, data = messages[2]
    red = np.full((96, 128, 3), 9, np.uint8)
    damages = {
        'corrupt message': data[:40],
        'bytes of nothing': b'',
        'encoding': maker.raw(red, '64FC9', time - DELAY),
        'size lie': maker.raw(red, 'rgb8', time - DELAY, height=2000),
        'truncated jpeg': None,
    }
    if kind == 'truncated jpeg':
        topic, msgtype, time, _ = messages[3]
        jpeg = cv2.imencode('.jpg', red)[1].tobytes()[:-100]
        messages[3] = (topic, msgtype, time, maker.compressed(jpeg, '.jpg', time - DELAY))
    else:
        messages[2] = (topic, msgtype, time, damages[kind])
    return messages, f'{topic} at {time}'


@pytest.mark.parametrize(
    ('kind', 'counted', 'words'),
    [
        ('corrupt message', 'corrupt message', '40 bytes are no sensor_msgs/msg/Image'),
        ('bytes of nothing', 'corrupt message', '0 bytes'),
        ('encoding', 'frame does not decode', "'64FC9' is not known"),
        ('size lie', 'frame does not decode', 'height x step'),
        ('truncated jpeg', 'frame does not decode', 'damaged or truncated'),
    ],
)
def test_a_bad_frame_is_named_counted_and_told_by_the_status(run, tmp_path, kind, counted, words):
    messages, place = damaged(kind)
    bag = write_bag(tmp_path / 'bag', messages)
    status, folder, printed = run(bag)
    assert status == WITH_SKIPPED
    report = report_of(folder)
    assert report['problems']['counts'] == {counted: 1}
    assert sum(camera['evaluated'] for camera in report['cameras']) == len(messages) - 1
    assert sum(camera['skipped'] for camera in report['cameras']) == 1
    for text in (printed, report['problems']['first'][0]['text']):
        assert place in text
        assert words in text
    assert 'Skipped' in (folder / 'index.html').read_text()

    status, folder, printed = run(bag, '--on-error', 'fail', out='refused')
    assert status == FAILED
    assert not folder.exists()
    assert printed.count('error: ') == 1
    assert place in printed


def test_the_other_frames_are_as_without_the_bad_one(run, tmp_path):
    messages, _ = damaged('truncated jpeg')
    _, good, _ = run(write_bag(tmp_path / 'good', two_cameras()), out='a')
    _, bad, _ = run(write_bag(tmp_path / 'bad', messages), out='b')
    whole, rest = read_bag(good / 'result'), read_bag(bad / 'result')
    times = [time for time, _ in rest['/road_anomaly/left/mask']]
    assert times == [messages[i][2] for i in (1, 5, 7)]
    for time, message in rest['/road_anomaly/left/mask']:
        (same,) = [m for t, m in whole['/road_anomaly/left/mask'] if t == time]
        np.testing.assert_array_equal(pixels(message), pixels(same))


def test_a_truncated_bag_is_evaluated_as_far_as_it_goes(run, tmp_path):
    messages = two_cameras(60)
    bag = write_bag(tmp_path / 'bag', messages)
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    status, folder, printed = run(bag)
    assert status == WITH_SKIPPED
    report = report_of(folder)
    assert report['problems']['counts'] == {'damaged file': 1}
    assert report['bag']['messages_declared'] == len(messages)
    evaluated = sum(camera['evaluated'] for camera in report['cameras'])
    assert 0 < evaluated == report['bag']['messages_indexed'] < len(messages)
    assert 'cut off' in printed
    assert run(bag, '--on-error', 'fail', out='refused')[0] == FAILED


def test_an_unknown_type_on_a_chosen_topic(run, tmp_path):
    messages = [('/chat', 'std_msgs/msg/String', 5, Maker().text()), *two_cameras()]
    bag = write_bag(tmp_path / 'bag', messages)
    status, folder, printed = run(bag, '--topics', '/chat', FRONT)
    assert status == WITH_SKIPPED
    assert report_of(folder)['problems']['counts'] == {'unknown message type': 1}
    assert '/chat holds std_msgs/msg/String' in printed
    assert run(bag, '--topics', '/chat', FRONT, '--on-error', 'fail', out='b')[0] == FAILED
    assert run(bag, '--topics', '/chat', out='c')[0] == FAILED


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--topics', '/nowhere'], 'no topic /nowhere; it holds'),
        (['--ground-truth', '/nowhere'], 'neither a folder nor a topic'),
        (['--batch', '0'], '--batch 0'),
        (['--params', '/nowhere.yaml'], '/nowhere.yaml'),
        (['--false-alarm-rate', '2'], '2'),
        (['--in-distribution', 'Lava'], 'Lava'),
        (['--max-message-mib', '0.001'], 'no frame could be evaluated'),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(run, tmp_path, options, words):
    bag = write_bag(tmp_path / 'bag', two_cameras(1), 'mcap', 'message')
    status, folder, printed = run(bag, *options)
    assert status == FAILED
    assert words in printed
    assert 'Traceback' not in printed
    assert not folder.exists()


def test_a_bag_without_images_says_what_it_holds(run, tmp_path):
    bag = write_bag(tmp_path / 'bag', [('/chat', 'std_msgs/msg/String', 5, Maker().text())])
    status, _, printed = run(bag)
    assert status == FAILED
    assert '/chat (std_msgs/msg/String, 1)' in printed


def test_a_folder_with_other_files_is_not_replaced(run, tmp_path):
    bag = write_bag(tmp_path / 'bag', two_cameras(1))
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'diary.txt').write_text('dear')
    status, folder, printed = run(bag)
    assert status == FAILED
    assert 'holds other files' in printed
    assert [p.name for p in folder.iterdir()] == ['diary.txt']
    shutil.rmtree(folder)
    assert run(bag)[0] == FINE
    assert run(bag)[0] == FINE, 'an earlier result is replaced'


def test_the_nodes_parameter_file_is_read(run, tmp_path):
    bag = write_bag(tmp_path / 'bag', two_cameras(1))
    status, folder, _ = run(
        bag, '--params', ROOT / 'config' / 'road_anomaly.yaml', '--false-alarm-rate', '0.02'
    )
    assert status == FINE
    settings = report_of(folder)['model']['settings']
    assert settings['false_alarm_rate'] == 0.02
    assert settings['roi.mode'] == 'none'  # the command line wins
    own = tmp_path / 'own.yaml'
    own.write_text(
        'road_anomaly:\n  ros__parameters:\n    minimum_area: 50\n    roi: {mode: labels}\n'
        "    in_distribution: ['Road', 'Pavement']\n    cameras: ['front']\n"
    )
    _, folder, _ = run(bag, '--params', own, out='b')
    report = report_of(folder)
    assert report['model']['settings']['minimum_area'] == 50.0
    assert report['model']['in_distribution'] == ['Road', 'Pavement']
    own.write_text('road_anomaly:\n  ros__parameters:\n    minimum_area: large\n')
    status, _, printed = run(bag, '--params', own, out='c')
    assert status == FAILED
    assert "minimum_area is 'large'" in printed


def test_every_parameter_that_decides_a_mask_is_known():
    from ood_perception.parameters.table import BY_NAME, DEFAULTS

    decisive = {
        n
        for n in BY_NAME
        if n.startswith(('roi.', 'persistence.')) or n.endswith(('rate', '_classes'))
    }
    decisive -= {'minimum_rate'}  # of frames
    assert decisive <= set(DEFAULTS), 'a parameter of the node that evaluate_bag does not know'


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'mono8', 'bayer_rggb8', 'yuv422_yuy2'])
def test_the_nodes_encodings_are_known(run, tmp_path, encoding):
    shape = {'bgr8': (96, 128, 3), 'rgba8': (96, 128, 4), 'yuv422_yuy2': (96, 128, 2)}
    image = np.random.default_rng(0).integers(0, 256, shape.get(encoding, (96, 128)), np.uint8)
    bag = write_bag(tmp_path / 'bag', [(FRONT, RAW, 7, Maker().raw(image, encoding, 3))])
    status, folder, _ = run(bag)
    assert status == FINE
    assert report_of(folder)['cameras'][0]['evaluated'] == 1


def test_persistence_and_output_scale_are_the_nodes(run, tmp_path):
    """An obstacle that is there in every frame is announced from the second on, with one id."""
    maker, messages = Maker(), []
    image = road_image(96, 128, (60, 60, 28, 24))
    for number in range(4):
        stamp = START + number * 10**8
        messages.append((FRONT, RAW, stamp, maker.raw(image, 'rgb8', stamp)))
    own = tmp_path / 'own.yaml'
    own.write_text(
        '/**:\n  ros__parameters:\n    persistence: {window: 3, required: 2}\n'
        '    output_scale: 0.5\n'
    )
    status, folder, _ = run(write_bag(tmp_path / 'bag', messages), '--params', own)
    assert status == FINE
    results = read_bag(folder / 'result')
    numbers = [
        {one.id for one in message.detections} for _, message in results['/road_anomaly/obstacles']
    ]
    assert numbers[0] == set()
    assert numbers[1] == numbers[2] == numbers[3] != set()
    assert pixels(results['/road_anomaly/mask'][0][1]).shape == (48, 64)


FLAT = """
import resource, sys
from ood_perception.cli.evaluate_bag import evaluate_bag
status = evaluate_bag(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bag(bundle, tmp_path):
    """Ten times the frames, each 0.9 MB: held in memory they would take 80 MB more."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    maker, peaks = Maker(), []
    for count in (10, 100):
        frames = (
            (FRONT, RAW, START + i, maker.raw(np.roll(image, i, 1), 'rgb8', START + i))
            for i in range(count)
        )
        bag = write_bag(tmp_path / f'bag_{count}', frames)
        arguments = ['--bundle', bundle, '--threads', '1', '--out', tmp_path / 'out']
        done = subprocess.run(
            [sys.executable, '-c', FLAT, str(bag), *map(str, arguments)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        status, peak = done.stdout.splitlines()[-1].split()
        assert int(status) == FINE
        peaks.append(int(peak) / 1024)
    assert peaks[1] - peaks[0] < 30
