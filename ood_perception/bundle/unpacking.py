# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles in a .zip: the files that the manifest lists, at the sizes it lists, into the cache."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

from ood_perception.bundle.archives import DAMAGED, open_archive
from ood_perception.bundle.manifest import MANIFEST_NAME, FileSpec, Manifest
from ood_perception.bundle.manifest_json import MOST_BUNDLE_BYTES, parse_manifest
from ood_perception.bundle.signatures import MOST_BYTES as MOST_SIGNATURE_BYTES
from ood_perception.bundle.signatures import SIGNATURE_NAME
from ood_perception.errors import BundleError
from ood_perception.files import cache_root, locked, make_folder, sha256_of
from ood_perception.json_files import MOST_BYTES

# Weights do not shrink below half, maps of numbers below a fiftieth; zeros to a thousandth.
MOST_RATIO = 200
_SMALL = 64 << 20


def unpacked(file: Path) -> Path:
    """
    Return the folder in the cache with what a stored bundle's manifest lists, each file checked.

    It is unpacked once per content, and again where what lies there is not it.
    Raises BundleError for what is no .zip, damaged, or unpacks to more than it may.
    """
    if not zipfile.is_zipfile(file):
        raise BundleError(f'{file} is neither a folder nor a .zip: give a bundle of the trainer')
    if file.stat().st_size > MOST_BUNDLE_BYTES:
        raise BundleError(f'{file} has more than {MOST_BUNDLE_BYTES} bytes; refused')
    target = cache_root() / 'unpacked' / sha256_of(file)[:32]
    try:
        with locked(target), open_archive(file) as archive:
            content = _manifest_bytes(archive, file)
            manifest = parse_manifest(content, f'{file}: {MANIFEST_NAME}')
            texts = {MANIFEST_NAME: content, **_signature(archive, file)}
            if not _is_whole(target, texts, manifest):
                _check_members(archive, manifest, file)
                make_folder(target, lambda folder: _extract(archive, manifest, texts, folder))
    except (*DAMAGED, KeyError) as error:
        raise BundleError(f'{file} is damaged ({error}): copy the bundle again') from error
    except OSError as error:
        raise BundleError(f'{file} cannot be unpacked into {target}: {error}') from error
    return target


def verify_file(path: Path, spec: FileSpec) -> None:
    """Raise BundleError where a file is not what the manifest says."""
    if not path.is_file():
        raise BundleError(f'{path} is missing: copy the whole bundle again')
    if path.stat().st_size != spec.size:
        raise BundleError(
            f'{path} has {path.stat().st_size} bytes, its manifest says {spec.size}: the file was '
            'altered or cut off; copy the bundle again'
        )
    found = sha256_of(path)
    if found != spec.sha256:
        raise BundleError(
            f'{path} has sha256 {found}, its manifest says {spec.sha256}: the file was altered; '
            'copy the bundle again'
        )


def _manifest_bytes(archive: zipfile.ZipFile, file: Path) -> bytes:
    try:
        member = archive.getinfo(MANIFEST_NAME)
    except KeyError as error:
        raise BundleError(
            f'{file} is no bundle: it has no {MANIFEST_NAME}; give the .zip of what the trainer '
            'packed, without a folder around it'
        ) from error
    if member.file_size > MOST_BYTES:
        raise BundleError(f'{file}: {MANIFEST_NAME} has more than {MOST_BYTES >> 20} MiB; refused')
    return archive.read(member)


def _signature(archive: zipfile.ZipFile, file: Path) -> dict[str, bytes]:
    """Return the signature by its name, if there is one."""
    if SIGNATURE_NAME not in archive.namelist():
        return {}
    if archive.getinfo(SIGNATURE_NAME).file_size > MOST_SIGNATURE_BYTES:
        raise BundleError(f'{file}: {SIGNATURE_NAME} has more than {MOST_SIGNATURE_BYTES} bytes')
    return {SIGNATURE_NAME: archive.read(SIGNATURE_NAME)}


def _is_whole(folder: Path, texts: dict[str, bytes], manifest: Manifest) -> bool:
    """Return whether a folder holds this manifest, its signature and all that it lists."""
    for name, content in texts.items():
        place = folder / name
        if folder.is_symlink() or not place.is_file() or place.stat().st_size != len(content):
            return False
        if place.read_bytes() != content:
            return False
    try:
        for name, spec in manifest.files.items():
            verify_file(folder / name, spec)
    except BundleError:
        return False
    return True


def _check_members(archive: zipfile.ZipFile, manifest: Manifest, file: Path) -> None:
    """Refuse, before a byte is unpacked, what is not as the manifest says or too much."""
    for member in archive.infolist():
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BundleError(f'{file}: {member.filename} is a link; refused')
    packed = 0
    for name, spec in manifest.files.items():
        member = archive.getinfo(name)
        packed += member.compress_size
        if member.file_size != spec.size:
            raise BundleError(
                f'{file}: {name} has {member.file_size} bytes, its manifest says {spec.size}; '
                'copy the bundle again'
            )
    total = sum(spec.size for spec in manifest.files.values())
    if total > max(_SMALL, MOST_RATIO * packed):
        raise BundleError(
            f'{file} unpacks {packed} bytes to {total}: no bundle is like that; refused'
        )
    free = shutil.disk_usage(_existing(cache_root())).free
    if total > free:
        raise BundleError(f'{file} unpacks to {total} bytes, the cache has room for {free}')


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _extract(
    archive: zipfile.ZipFile, manifest: Manifest, texts: dict[str, bytes], folder: Path
) -> None:
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    for name in manifest.files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as inside, place.open('xb') as out:
            shutil.copyfileobj(inside, out)
