# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Signatures of bundles, as minisign makes and checks them (Ed25519 over BLAKE2b-512).

What is signed is manifest.json, which holds the checksum of every other file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import MANIFEST_NAME
from ood_perception.errors import BundleError, ConfigError, required
from ood_perception.files import user_path
from ood_perception.requirements import install_command

SIGNATURE_NAME = f'{MANIFEST_NAME}.minisig'
MOST_BYTES = 4096
"""Of a signature or key file: they are of fixed size, but for two lines of comment."""


def check_signature(root: Path, manifest: bytes, trusted: Sequence[str]) -> str:
    """
    Return the signer's comment of a bundle that one of the trusted keys has signed.

    root: its folder. manifest: the bytes of its manifest.json. trusted: public keys of minisign,
    each as 56 characters of base64 or as a file. Raises BundleError where no signature is there or
    none of the keys made it, ConfigError for what is no key.
    """
    minisign = load_minisign()
    keys = [read_public_key(text) for text in trusted]
    place = root / SIGNATURE_NAME
    try:
        signature = minisign.Signature.from_bytes(_small(place))
    except FileNotFoundError as error:
        raise BundleError(
            f'{root} is not signed and require_signature asks for it: get {SIGNATURE_NAME} from '
            'whoever made the bundle, or sign it yourself (ood_trainer sign)'
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f'{place} is no signature of minisign ({error}); refused') from error
    for key in keys:
        try:
            key.verify(manifest, signature)
        except minisign.VerifyError:
            continue
        return str(signature.trusted_comment)
    raise BundleError(
        f'{root}: its manifest is not signed by any of {len(keys)} trusted keys: it was altered, '
        'or somebody else made it; refused'
    )


def load_minisign() -> Any:
    """Return the library; DependencyError says how to get it."""
    return required('minisign', f'signatures need py-minisign: {install_command("sign")}')


def read_public_key(text: str) -> Any:
    """Return the public key that is written out or lies in a file; ConfigError."""
    kind = load_minisign().PublicKey
    try:
        path = user_path(text)
        return kind.from_bytes(_small(path)) if path.is_file() else kind.from_base64(text)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: ~nobody
        raise ConfigError(
            f'require_signature {text[:100]!r} is no public key of minisign ({error}): give its '
            'file, or its line of 56 characters'
        ) from error


def _small(path: Path) -> bytes:
    with path.open('rb') as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f'more than {MOST_BYTES} bytes')
    return content
