# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Sign a bundle, so that whoever knows your public key can require it: docs/security.md."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import MANIFEST_NAME
from ood_perception.bundle.signatures import SIGNATURE_NAME, load_minisign
from ood_perception.bundle.store import load_bundle
from ood_perception.errors import ConfigError
from ood_perception.files import make_file
from ood_perception.texts import tell

PASSWORD_ENV = 'OOD_SIGN_PASSWORD'


def main(argv: Sequence[str] | None = None) -> int:
    """Sign bundles with a secret key of minisign, which is made where there is none."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('bundle', type=Path, nargs='+', help='folders, after pack and quantize')
    parser.add_argument('--key', type=Path, required=True, help='secret key; beside it KEY.pub')
    parser.add_argument('--make-key', action='store_true', help='make a key pair first')
    parser.add_argument('--comment', default='', help='signed, too; default: name and sha256')
    arguments = parser.parse_args(argv)
    if arguments.make_key:
        _make_key(arguments.key)
    key = _secret_key(arguments.key)
    with key:
        for place in arguments.bundle:
            _sign(place, key, arguments.comment)
    return 0


def _sign(place: Path, key: Any, comment: str) -> None:
    """Write the signature into the bundle's folder, after every file was checked."""
    if not place.is_dir():
        raise ConfigError(f'{place} is no folder: sign the folder of a bundle, then zip it')
    bundle = load_bundle(place)
    comment = comment or f'{bundle.manifest.name} {bundle.sha256}'
    content = (place / MANIFEST_NAME).read_bytes()
    try:
        signature = key.sign(content, trusted_comment=comment)
    except ValueError as error:
        raise ConfigError(f'--comment {comment[:100]!r} cannot be signed: {error}') from error
    make_file(place / SIGNATURE_NAME, lambda file: file.write_bytes(bytes(signature) + b'\n'))
    tell(f'signed: {place / SIGNATURE_NAME} ({comment})')


def _secret_key(path: Path) -> Any:
    kind = load_minisign().SecretKey
    try:
        key = kind.from_file(path)
        if key.is_encrypted():
            key.decrypt(_password(f'password of {path}: '))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'--key {path} cannot be used ({error}): give a secret key of minisign, or --make-key'
        ) from error
    return key


def _make_key(path: Path) -> None:
    """Write a new pair, the secret key under a password and for its owner alone."""
    public = path.with_name(path.name + '.pub')
    if path.exists() or public.exists():
        raise ConfigError(f'--make-key: {path} or {public} is there already; give another --key')
    pair = load_minisign().KeyPair.generate()
    text = bytes(pair.public_key)
    with pair.secret_key as key:
        if password := _password(f'password for {path}, empty for none: '):
            key.encrypt(password)
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), 'wb') as file:
                file.write(bytes(key) + b'\n')
            make_file(public, lambda file: file.write_bytes(text + b'\n'))
        except OSError as error:
            raise ConfigError(f'--key {path} cannot be written ({error})') from error
    tell(f'public key, for require_signature: {text.decode().splitlines()[-1]} ({public})')


def _password(prompt: str) -> str:
    if (given := os.environ.get(PASSWORD_ENV)) is not None:
        return given
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        raise ConfigError(
            f'{prompt.strip(": ")}: there is no terminal to ask on; set {PASSWORD_ENV}'
        ) from error
