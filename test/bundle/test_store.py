# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Loading bundles from folders and zips; what is missing, altered or foreign is refused."""

import shutil
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from bundles import write_tiny_bundle

from ood_perception.bundle import store
from ood_perception.bundle.manifest_json import read_manifest
from ood_perception.bundle.store import default_bundle_path, load_bundle, write_manifest
from ood_perception.errors import BundleError
from ood_perception.files import make_file, make_folder


@pytest.fixture
def own(tiny_bundle, tmp_path, monkeypatch):
    """A bundle and a cache that the test may change."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return shutil.copytree(tiny_bundle, tmp_path / 'own')


def zipped(folder, target):
    with zipfile.ZipFile(target, 'w') as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return target


def test_a_folder_loads(own):
    bundle = load_bundle(own)

    assert bundle.root == own
    assert bundle.manifest.name == 'tiny'
    assert bundle.missing_weights == ()
    assert bundle.stage_path(bundle.manifest.stages[1]) == own / 'head.onnx'


def test_the_checksum_stands_for_the_content(own, tiny_bundle, tmp_path):
    other = write_tiny_bundle(tmp_path / 'other', seed=1)

    assert load_bundle(own).sha256 == load_bundle(tiny_bundle).sha256
    assert load_bundle(own).sha256 != load_bundle(other).sha256


def test_a_zip_is_unpacked_once_and_is_the_same_bundle(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')

    first = load_bundle(file)
    stamp = (first.root / 'head.onnx').stat().st_mtime_ns
    second = load_bundle(file)

    assert first.sha256 == load_bundle(own).sha256
    assert second.root == first.root
    assert (second.root / 'head.onnx').stat().st_mtime_ns == stamp
    assert first.root.is_relative_to(tmp_path / 'cache')


def test_a_zip_is_unpacked_whole_by_many_at_once(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')

    with ThreadPoolExecutor(4) as pool:
        bundles = list(pool.map(load_bundle, [file] * 8))

    assert len({bundle.root for bundle in bundles}) == 1


@pytest.mark.parametrize('name', ['head.onnx', 'golden.npz', 'MODEL_CARD.md'])
def test_an_altered_file_is_named_with_the_remedy(own, name):
    data = bytearray((own / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own / name).write_bytes(data)

    with pytest.raises(BundleError, match=rf'{name} has sha256 .* copy the bundle again'):
        load_bundle(own)
    assert load_bundle(own, verify=False).manifest.name == 'tiny'


def test_a_cut_file_and_a_missing_file_are_named(own):
    file = own / 'backbone.onnx'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r'backbone.onnx has \d+ bytes, its manifest says'):
        load_bundle(own)
    file.unlink()
    with pytest.raises(BundleError, match=r'backbone.onnx is missing: copy'):
        load_bundle(own)


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match='does not exist'):
        load_bundle(tmp_path / 'nothing')
    with pytest.raises(BundleError, match='is no bundle'):
        load_bundle(tmp_path)
    (tmp_path / 'text').write_text('no zip')
    with pytest.raises(BundleError, match=r'neither a folder nor a .zip'):
        load_bundle(tmp_path / 'text')


@pytest.mark.parametrize('name', ['x' * 10_000, 'a\0b'])
def test_a_name_that_no_file_can_have_is_one_error(name):
    with pytest.raises(BundleError, match=r'cannot be read|does not exist'):
        load_bundle(name)


def test_a_damaged_zip_is_refused_and_leaves_nothing(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF
    file.write_bytes(data)

    with pytest.raises(BundleError, match=r'own.zip is damaged'):
        load_bundle(file)
    left = [p for p in (tmp_path / 'cache').rglob('*') if p.suffix != '.lock' and p.is_file()]
    assert left == []


def test_a_zip_cannot_write_outside_of_its_folder(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr('../../escaped', 'x')
        archive.writestr('/escaped', 'x')

    root = load_bundle(file).root

    escaped = [p for p in tmp_path.rglob('escaped') if not p.is_relative_to(root)]
    assert escaped == []


def test_a_link_inside_a_zip_is_refused(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')
    with zipfile.ZipFile(file, 'a') as archive:
        link = zipfile.ZipInfo('link')
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, '/etc')

    with pytest.raises(BundleError, match='link is a link; refused'):
        load_bundle(file)


def test_a_manifest_is_written_the_same_way_every_time(own, tmp_path):
    manifest = read_manifest(own / 'manifest.json')
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest)

    assert read_manifest(tmp_path / 'a' / 'manifest.json') == manifest
    texts = [(tmp_path / name / 'manifest.json').read_bytes() for name in ('a', 'b')]
    assert texts[0] == texts[1]


def test_the_default_bundle_is_the_shipped_one_unless_named(own, monkeypatch):
    monkeypatch.delenv('OOD_PERCEPTION_BUNDLE', raising=False)
    assert default_bundle_path() == store.DEFAULT_BUNDLE
    monkeypatch.setenv('OOD_PERCEPTION_BUNDLE', str(own))
    assert default_bundle_path() == own


def test_a_shipped_bundle_is_found_by_its_name(own, tmp_path, monkeypatch):
    monkeypatch.delenv('OOD_PERCEPTION_BUNDLE', raising=False)
    assert store.shipped_bundles()['road_open'] == store.DEFAULT_BUNDLE
    for name, path in store.shipped_bundles().items():
        bundle = load_bundle(name)
        assert (bundle.root, bundle.manifest.name) == (path, name)
    monkeypatch.setenv('OOD_PERCEPTION_BUNDLE', 'road_open')
    assert default_bundle_path() == store.DEFAULT_BUNDLE
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'road_open').symlink_to(own)
    assert load_bundle('road_open').root.samefile(own)  # what lies here comes first


def test_an_unknown_name_is_told_with_the_shipped_ones():
    with pytest.raises(BundleError, match=r'lake_default does not exist: .*road_open'):
        load_bundle('lake_default')


def test_every_shipped_bundle_is_small():
    for path in store.shipped_bundles().values():
        assert sum(file.stat().st_size for file in path.iterdir()) < 8 << 20


def fail(path):
    if path.is_dir():
        (path / 'part').write_text('half')
    else:
        path.write_text('half')
    raise RuntimeError('interrupted')


@pytest.mark.parametrize('make', [make_file, make_folder])
def test_what_fails_half_way_leaves_nothing(tmp_path, make):
    with pytest.raises(RuntimeError, match='interrupted'):
        make(tmp_path / 'target', fail)

    assert list(tmp_path.iterdir()) == []


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    (tmp_path / 'target').write_text('old')

    with pytest.raises(RuntimeError, match='interrupted'):
        make_file(tmp_path / 'target', fail)

    assert (tmp_path / 'target').read_text() == 'old'
