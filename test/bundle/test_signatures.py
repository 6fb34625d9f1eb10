# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles signed and required to be: by library and program, in a zip, altered, by others."""

import base64
import json
import shutil
import subprocess
import zipfile

import pytest
from bundles import write_manifest

from ood_perception.bundle.signatures import SIGNATURE_NAME
from ood_perception.bundle.store import load_bundle
from ood_perception.cli.bundle import inspect_bundle
from ood_perception.errors import BundleError, ConfigError
from ood_perception.loader import open_model

minisign = pytest.importorskip('minisign', reason='needs py-minisign (extra sign)')
needs_program = pytest.mark.skipif(not shutil.which('minisign'), reason='needs minisign')


@pytest.fixture
def own(tiny_bundle, tmp_path, monkeypatch):
    """A bundle and a cache that the test may change."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return shutil.copytree(tiny_bundle, tmp_path / 'own')


@pytest.fixture(scope='module')
def pairs():
    return [minisign.KeyPair.generate() for _ in range(2)]


def public(pair):
    return pair.public_key.to_base64().decode()


def sign(root, pair, comment='tiny 1.0'):
    signature = pair.secret_key.sign(
        (root / 'manifest.json').read_bytes(), trusted_comment=comment
    )
    (root / SIGNATURE_NAME).write_bytes(bytes(signature))


def test_a_signed_bundle_is_accepted_by_each_trusted_key(own, pairs):
    sign(own, pairs[0])
    load_bundle(own, require_signature=[public(pairs[0])])
    load_bundle(own, require_signature=[public(pairs[1]), public(pairs[0])])


def test_a_key_may_lie_in_a_file(own, pairs, tmp_path):
    sign(own, pairs[0])
    (tmp_path / 'key.pub').write_bytes(bytes(pairs[0].public_key))
    load_bundle(own, require_signature=[str(tmp_path / 'key.pub')])


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(own, pairs):
    load_bundle(own)
    with pytest.raises(BundleError, match='is not signed and require_signature asks for it'):
        load_bundle(own, require_signature=[public(pairs[0])])


def test_the_signature_of_somebody_else_is_refused(own, pairs):
    sign(own, pairs[1])
    with pytest.raises(BundleError, match='not signed by any of 1 trusted keys'):
        load_bundle(own, require_signature=[public(pairs[0])])


def test_a_key_that_only_bears_the_trusted_name_is_refused(own, pairs):
    """The key's number is no secret: another key may claim it."""
    sign(own, pairs[1])
    lines = (own / SIGNATURE_NAME).read_bytes().splitlines()
    name = base64.b64decode(public(pairs[0]))[2:10]
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(raw[:2] + name + raw[10:])
    (own / SIGNATURE_NAME).write_bytes(b'\n'.join(lines))
    with pytest.raises(BundleError, match='not signed by any'):
        load_bundle(own, require_signature=[public(pairs[0])])


def test_a_bundle_altered_after_signing_is_refused(own, pairs):
    sign(own, pairs[0])
    values = json.loads((own / 'manifest.json').read_text())
    (own / 'MODEL_CARD.md').write_text('Somebody else wrote this.')
    with pytest.raises(BundleError, match='its manifest says'):
        load_bundle(own, require_signature=[public(pairs[0])])
    write_manifest(own, values)
    with pytest.raises(BundleError, match='it was altered'):
        load_bundle(own, require_signature=[public(pairs[0])])


def test_a_comment_altered_after_signing_is_refused(own, pairs):
    sign(own, pairs[0], 'tiny 1.0')
    place = own / SIGNATURE_NAME
    place.write_bytes(place.read_bytes().replace(b'tiny 1.0', b'tiny 2.0'))
    with pytest.raises(BundleError, match='not signed by any'):
        load_bundle(own, require_signature=[public(pairs[0])])


@pytest.mark.parametrize(
    'content', [b'', b'\n' * 9, b'x' * 5000, b'untrusted comment: a\n\xff\xfe\ntrusted', None]
)
def test_what_is_no_signature_is_refused(own, pairs, content):
    if content is None:
        (own / SIGNATURE_NAME).mkdir()
    else:
        (own / SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(BundleError, match='is no signature of minisign'):
        load_bundle(own, require_signature=[public(pairs[0])])


@pytest.mark.parametrize('key', ['', 'RWQ', 'no-such-file.pub', '~nosuchuser/key.pub', 'x' * 9000])
def test_what_is_no_key_is_a_mistake_of_the_user(own, pairs, key):
    sign(own, pairs[0])
    with pytest.raises(ConfigError, match='is no public key of minisign'):
        load_bundle(own, require_signature=[key])


def test_a_zip_carries_its_signature(own, pairs, tmp_path):
    sign(own, pairs[0])
    file = zipped(own, tmp_path / 'own.zip')
    shutil.rmtree(own)
    root = load_bundle(file, require_signature=[public(pairs[0])]).root

    (root / SIGNATURE_NAME).unlink()
    load_bundle(file, require_signature=[public(pairs[0])])


def test_a_zip_with_a_large_signature_is_refused(own, tmp_path):
    (own / SIGNATURE_NAME).write_bytes(bytes(1 << 20))
    with pytest.raises(BundleError, match='has more than 4096 bytes'):
        load_bundle(zipped(own, tmp_path / 'own.zip'))


def zipped(folder, target):
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return target


def test_the_parameter_reaches_the_bundle(own, pairs):
    with pytest.raises(BundleError, match='is not signed'):
        open_model({'bundle': str(own), 'require_signature': (public(pairs[0]),)})


def test_inspect_bundle_requires_a_signature(own, pairs, capsys):
    arguments = [str(own), '--require-signature', public(pairs[0])]
    assert inspect_bundle(arguments) == 1
    assert 'is not signed' in capsys.readouterr().err
    sign(own, pairs[0])
    assert inspect_bundle(arguments) == 0


@needs_program
def test_the_program_minisign_signs_bundles(own, tmp_path):
    key, pub = tmp_path / 'own.key', tmp_path / 'own.pub'
    run(['minisign', '-G', '-W', '-s', key, '-p', pub])
    run(['minisign', '-S', '-s', key, '-m', own / 'manifest.json'])
    load_bundle(own, require_signature=[str(pub)])


def run(command):
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
