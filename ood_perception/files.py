# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Files that can be made again: where they live, and how to make each exactly once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ood_perception.errors import OodPerceptionError

CACHE_ENV = 'OOD_PERCEPTION_CACHE'
# It can only be read by setting it, which is no harm while one thread runs: at the beginning.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def cache_root() -> Path:
    """Return the cache folder: OOD_PERCEPTION_CACHE, else ood_perception in the user's cache."""
    if os.environ.get(CACHE_ENV):
        return Path(os.environ[CACHE_ENV]).expanduser()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'ood_perception'


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` + '.lock' among all processes; freed when one dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + '.lock'), 'a+b')  # noqa: SIM115
    except OSError as error:
        raise OodPerceptionError(
            f'cache {path.parent} cannot be written ({error}): set {CACHE_ENV} to another folder'
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_file(path: Path, write: Callable[[Path], object]) -> None:
    """
    Make `path` by `write(temporary)`, then fsync and rename: whole or not at all.

    The temporary file lies beside `path` and is removed when `write` fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` by `fill(temporary)`, then rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    try:
        fill(temporary)
        for file in temporary.rglob('*'):
            if file.is_file():
                _sync(file)
        os.chmod(temporary, 0o777 & ~_UMASK)
        if path.is_symlink() or path.is_file():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path, prefix: str = '.') -> None:
    """Remove temporary files (of `prefix`) of processes that were killed; hold the lock."""
    for stale in folder.glob(f'{prefix}*'):
        if stale.is_file():
            stale.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
