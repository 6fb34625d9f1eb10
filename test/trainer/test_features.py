# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The token cache: right values, nothing computed twice, whole after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from backbone_inputs import tokens_of  # noqa: E402
from camvid_files import write_camvid  # noqa: E402
from s3_server import s3_server  # noqa: E402
from tiny_backbones import tiny_backbone  # noqa: E402

from ood_perception.bags.remote import recording_path  # noqa: E402
from ood_perception.errors import ConfigError, DataError  # noqa: E402
from ood_perception.image.geometry import geometry_for, to_network  # noqa: E402
from trainer import feature_files, features  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.features import View, extract, network_image  # noqa: E402

VIEW = View(28, 70, 'fit', (0.0, 0.5, 1.0))


@pytest.fixture
def images(tmp_path):
    return load_images('camvid', write_camvid(tmp_path / 'data'), 'train')


def run(images, cache, layers=(0, 2), view=VIEW, backbone=None, **options):
    backbone = backbone or tiny_backbone()
    return extract(images, backbone, layers, view, cache, **options)


def test_tokens_and_labels_are_those_of_the_network_image(images, tmp_path):
    features = run(images, tmp_path / 'cache', batch=5)
    assert features.names == images.names
    assert features.labels.shape == (12, 28, 70)
    backbone = tiny_backbone()
    for index in (0, 4, 11):
        image, labels = images.read(index)
        geometry = geometry_for(image.shape[:2], VIEW.size, 'fit', (0.0, 0.5, 1.0)[index % 3])
        photo = torch.from_numpy(to_network(image, geometry))[None]
        for layer, expected in tokens_of(backbone, photo, [0, 2]).items():
            actual = features.tokens[layer][index]
            assert (actual.shape, actual.dtype) == ((2, 5, 16), np.float16)
            np.testing.assert_allclose(actual, expected[0].numpy(), atol=2e-3, rtol=1e-3)
        expected_labels = to_network(labels, geometry, labels=True)
        np.testing.assert_array_equal(features.labels[index], expected_labels)
    assert (features.labels == 255).any()


def test_anchors_move_the_image_in_the_padding(images):
    padded = [(network_image(images, i, VIEW)[1] == 255).all(0) for i in range(3)]
    columns = [np.flatnonzero(~p) for p in padded]
    assert columns[0][0] == 0
    assert columns[2][-1] == 69
    assert columns[1][0] > 0
    assert columns[1][-1] < 69


def test_a_second_call_computes_nothing_and_other_layers_only_themselves(
    images, tmp_path, monkeypatch
):
    first = run(images, tmp_path / 'cache')
    computed = []
    forward = features.forward_tokens

    def counted(baked, batch_images, precision):
        computed.append([f'{kind}_{block}' for kind, block in baked.wanted])
        return forward(baked, batch_images, precision)

    monkeypatch.setattr(features, 'forward_tokens', counted)
    again = run(images, tmp_path / 'cache')
    assert computed == []
    assert again.key == first.key
    more = run(images, tmp_path / 'cache', layers=(0, 1, 2), batch=12)
    assert computed == [['tokens_1']]
    assert more.key != first.key
    np.testing.assert_array_equal(more.tokens['tokens_2'], first.tokens['tokens_2'])


@pytest.mark.parametrize(
    'view',
    [
        View(28, 84, 'fit', VIEW.anchors),
        View(28, 70, 'stretch', VIEW.anchors),
        View(28, 70, 'fit', (0.5,)),
        View(28, 70, 'fit', VIEW.anchors, 'bf16'),
    ],
)
def test_the_key_holds_everything_that_tokens_depend_on(images, tmp_path, view):
    key = run(images, tmp_path / 'cache').key
    assert run(images, tmp_path / 'cache', view=view).key != key
    other = tiny_backbone(seed=1)
    assert run(images, tmp_path / 'cache', backbone=other).key != key
    assert run(images.subset(range(11)), tmp_path / 'cache').key != key


def test_bf16_tokens_are_close_to_f32(images, tmp_path):
    exact = run(images, tmp_path / 'cache')
    view = View(*VIEW.size, VIEW.policy, VIEW.anchors, 'bf16')
    close = run(images, tmp_path / 'cache', view=view)
    a, b = (np.asarray(f.tokens['tokens_2'], np.float64) for f in (exact, close))
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert 0.99 < cosine.min() < 1.0


def test_a_subset_reads_like_the_whole(images, tmp_path):
    whole = run(images, tmp_path / 'cache')
    chosen = [7, 0, 3]
    part = whole.subset(chosen)
    assert part.names == tuple(whole.names[i] for i in chosen)
    assert part.key not in (whole.key, whole.subset([7, 0]).key)
    expected = np.asarray(whole.tokens['tokens_2'])[chosen]
    rows = part.tokens['tokens_2']
    assert (rows.shape, rows.dtype, len(rows)) == (expected.shape, np.float16, 3)
    np.testing.assert_array_equal(np.asarray(rows), expected)
    np.testing.assert_array_equal(rows[1], expected[1])
    np.testing.assert_array_equal(rows[1:], expected[1:])
    np.testing.assert_array_equal(rows[1:, 0, 2], expected[1:, 0, 2])
    np.testing.assert_array_equal(rows[1, 0], expected[1, 0])
    np.testing.assert_array_equal(np.stack(list(rows)), expected)
    np.testing.assert_array_equal(part.labels, np.asarray(whole.labels)[chosen])
    again = part.subset([2])
    np.testing.assert_array_equal(again.tokens['tokens_2'][0], expected[2])


def test_what_cannot_be_extracted_is_refused(images, tmp_path):
    with pytest.raises(ConfigError, match='multiple of the patch'):
        run(images, tmp_path / 'cache', view=View(30, 70))
    with pytest.raises(ConfigError, match='precision'):
        run(images, tmp_path / 'cache', view=View(28, 70, precision='f16'))
    with pytest.raises(DataError, match='empty'):
        run(images.subset([]), tmp_path / 'cache')


WORKER = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + '/test/helpers']
from tiny_backbones import tiny_backbone
from trainer import feature_files, features
feature_files.BLOCK = 2
from trainer.datasets import load_images
forward, done = features.forward_tokens, []
def stopping(*args):
    if len(done) == 5:
        print('five', flush=True)
        time.sleep(3600)
    done.append(0)
    return forward(*args)
features.forward_tokens = stopping
images = load_images('camvid', Path(sys.argv[2]) / 'data', 'train')
view = features.View(28, 70, 'fit', (0.0, 0.5, 1.0))
features.extract(images, tiny_backbone(), (0, 2), view, Path(sys.argv[2]) / 'cache', batch=1)
"""


def test_extraction_goes_on_after_a_kill(images, tmp_path, monkeypatch):
    repository = str(ROOT)
    worker = subprocess.Popen(
        [sys.executable, '-c', WORKER, repository, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert worker.stdout.readline() == b'five\n'
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    monkeypatch.setattr(feature_files, 'BLOCK', 2)
    kept = sorted((tmp_path / 'cache').glob('*/tokens_2.*.npy'))
    assert len(kept) == 2  # four images, and the fifth is in a block that is not whole
    before = [path.stat().st_mtime_ns for path in kept]
    (begun,) = (tmp_path / 'cache').glob('*/labels.00002.rows')
    with begun.open('ab') as torn:
        torn.write(b'a part of a row')
    made = []
    forward = features.forward_tokens
    counted = lambda *args: made.append(0) or forward(*args)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(features, 'forward_tokens', counted)
        resumed = run(images, tmp_path / 'cache', batch=1)
    assert len(made) == 12 - 5, 'the one that was in its hands, and those that nobody had begun'
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert not list(tmp_path.glob('cache/*/*.rows'))
    whole = run(images, tmp_path / 'other', batch=1)
    for layer in resumed.tokens:
        np.testing.assert_array_equal(resumed.tokens[layer], whole.tokens[layer])
    np.testing.assert_array_equal(resumed.labels, whole.labels)


def test_blocks_are_joined_and_processes_share_them(images, tmp_path, monkeypatch):
    whole = run(images, tmp_path / 'one')
    monkeypatch.setattr(feature_files, 'BLOCK', 5)
    made = []
    fill = feature_files.FeatureFiles._fill
    monkeypatch.setattr(
        feature_files.FeatureFiles, '_fill',
        lambda files, block, names: (made.append(block), fill(files, block, names)),
    )  # fmt: skip
    monkeypatch.setattr(feature_files, 'share', lambda items: items[1::2])
    parts = run(images, tmp_path / 'many')
    assert made == [1, 0, 2]  # its own, then what nobody else made
    assert parts.key == whole.key
    for layer, tokens in whole.tokens.items():
        np.testing.assert_allclose(np.asarray(parts.tokens[layer]), tokens, atol=2e-3)
    np.testing.assert_array_equal(np.asarray(parts.labels), whole.labels)


def test_tokens_in_an_object_store_are_not_computed_again(images, tmp_path, monkeypatch):
    with s3_server():
        remote = recording_path('s3://tokens/of/camvid')
        remote.parent.parent.mkdir()
        first = run(images, tmp_path / 'one', remote=remote)
        monkeypatch.setattr(feature_files.FeatureFiles, '_fill', None)
        again = run(images, tmp_path / 'two', remote=remote)
    assert again.key == first.key
    for layer, tokens in first.tokens.items():
        np.testing.assert_array_equal(again.tokens[layer], tokens)
    np.testing.assert_array_equal(again.labels, first.labels)


def test_what_a_killed_process_began_goes_where_the_object_store_has_it(images, tmp_path):
    first = run(images, tmp_path / 'store')  # a folder of files, like an object store's
    (kept,) = (tmp_path / 'store').iterdir()
    folder = tmp_path / 'two' / kept.name
    folder.mkdir(parents=True)
    (folder / 'labels.00000.rows').write_bytes(b'begun')
    again = run(images, tmp_path / 'two', remote=tmp_path / 'store')
    np.testing.assert_array_equal(again.labels, first.labels)
    assert not list(folder.glob('*.rows'))


def test_tokens_of_images_that_were_brought_to_size_otherwise_are_not_taken(
    images, tmp_path, monkeypatch
):
    now = run(images, tmp_path / 'cache')
    monkeypatch.setattr(features, 'FORMAT', 1)  # area averages for every shrinking
    assert run(images, tmp_path / 'cache').key != now.key
