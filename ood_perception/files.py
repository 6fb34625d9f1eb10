# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Files that can be made again: where they live, and how to make each exactly once."""

from __future__ import annotations

import ctypes
import fcntl
import glob
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ood_perception.errors import ConfigError, OodPerceptionError
from ood_perception.texts import printable

_LOG = logging.getLogger(__name__)
_MARK = '.tmp-'  # in the names of what is not whole yet
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)

CACHE_ENV = 'OOD_PERCEPTION_CACHE'
# It can only be read by setting it, which is no harm while one thread runs: at the beginning.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def cache_root() -> Path:
    """Return the cache folder: OOD_PERCEPTION_CACHE, else ood_perception in the user's cache."""
    if os.environ.get(CACHE_ENV):
        return user_path(os.environ[CACHE_ENV])
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return user_path(base) / 'ood_perception'


def user_path(text: str | Path) -> Path:
    """Return a path, `~` for a home; that of an unknown user stays, which Path refuses."""
    return Path(os.path.expanduser(text))


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """
    Hold an exclusive lock on `path` + '.lock' among all processes; freed when one dies.

    Whoever has to wait says for whom.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + '.lock'), 'a+b')  # noqa: SIM115
    except OSError as error:
        raise OodPerceptionError(
            f'cache {path.parent} cannot be written ({error}): set {CACHE_ENV} to another folder'
        ) from error
    with lock:
        if not _taken(lock.fileno()):
            lock.seek(0)
            holder = lock.read(200).decode(errors='replace') or 'another process'
            _LOG.warning('waiting for %s, which makes %s', printable(holder), path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):  # a full disk: the lock holds without a name
            lock.truncate(0)
            lock.write(f'process {os.getpid()} ({" ".join(sys.argv)[:150]})'.encode())
            lock.flush()
        yield


def _taken(handle: int) -> bool:
    """Take the lock of an open file or folder; False where another process holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_file(path: Path, write: Callable[[Path], object]) -> None:
    """
    Make `path` by `write(temporary)`, then fsync and rename: whole or not at all.

    The temporary file lies beside `path` and is removed when `write` fails, or by the next that
    makes `path` where this process is killed.
    """
    with _temporary(path, _new_file) as temporary:
        write(temporary)
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        _sync(path.parent)


def make_folder(
    path: Path, fill: Callable[[Path], None], ours: Callable[[str], bool] = lambda name: True
) -> None:
    """
    Make the folder `path` by `fill(temporary)`, then rename: whole or not at all.

    What is there stays until the new folder is whole, takes its place at once, and only then is
    removed. ours: whether a file there, by its name relative to `path`, belongs to what is
    replaced; all others are kept in the new folder, and named.
    """
    with _temporary(path, _new_folder) as temporary:
        fill(temporary)
        kept = _keep_foreign(path, temporary, ours) if path.is_dir() else []
        for file in temporary.rglob('*'):
            if file.is_file():
                _sync(file)
        os.chmod(temporary, 0o777 & ~_UMASK)
        if path.is_symlink() or path.is_file():
            path.unlink()
        _put_in_place(temporary, path)
        _sync(path.parent)
    if kept:
        _LOG.warning('%s: kept what is not of the result: %s', path, ', '.join(kept))


def _keep_foreign(old: Path, new: Path, ours: Callable[[str], bool]) -> list[str]:
    """Put the files of an old folder that are not ours into the new one; return their names."""
    names = sorted(str(file.relative_to(old)) for file in old.rglob('*') if not file.is_dir())
    foreign = [name for name in names if not ours(name) and not (new / name).exists()]
    for name in foreign:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / name, new / name, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(old / name, new / name, follow_symlinks=False)
    return [printable(name) for name in foreign]


def _put_in_place(new: Path, path: Path) -> None:
    """Rename a folder to `path`; what was there is where the new one was. Nothing is ever lost."""
    if not path.exists():
        os.replace(new, path)
        return
    with suppress(AttributeError):  # a C library without it
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(new.absolute()), os.fsencode(path.absolute())
        if libc.renameat2(-1, names[0], -1, names[1], _EXCHANGE) == 0:
            return
    away = new.with_name(f'{new.name}.old')  # a file system that cannot exchange
    os.replace(path, away)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(away, path)
        raise
    os.replace(away, new)


@contextmanager
def _temporary(path: Path, make: Callable[[str, Path], Path]) -> Iterator[Path]:
    """
    Make a file or folder beside `path` that is removed in the end; others of killed runs are, too.

    It is locked as long as its process lives, which is how those are known.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f'.{path.name[:200]}{_MARK}'
    sweep(path.parent, prefix)
    while True:
        temporary = make(prefix, path.parent)
        handle = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # nobody swept it before it was locked
            break
        os.close(handle)
    try:
        yield temporary
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a name that says nothing to a user
            error.filename = str(path)
        raise
    finally:
        _remove(temporary)
        os.close(handle)


def _new_file(prefix: str, folder: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    os.close(handle)
    return Path(name)


def _new_folder(prefix: str, folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))


def sweep(folder: Path, prefix: str = '.') -> None:
    """Remove the temporary files and folders (of `prefix`) of processes that were killed."""
    for stale in folder.glob(f'{glob.escape(prefix)}*'):
        if _MARK not in stale.name:
            continue
        with suppress(OSError):  # gone already; or of a file system without locks
            handle = os.open(stale, os.O_RDONLY)
            try:
                if _taken(handle):
                    _remove(stale)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_writable(path: Path, option: str = '--out') -> None:
    """
    Raise ConfigError for a folder that cannot be written to or made; call it before the work.

    option: how the user named it. Nothing is left behind. It is tried with 1 MiB: a full or
    read-only disk, missing rights, a file in the way.
    """
    try:
        there = path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise ConfigError(f'{option} {path}: {there} is a file, give a folder')
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b'\0' * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, 'strerror', None) or error
        raise ConfigError(f'{option} {path} cannot be written: {reason}') from error


def check_file(path: Path | None, option: str) -> None:
    """Raise ConfigError where a file cannot be written, as check_writable; None is no file."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f'{option} {path} is a folder: give a file')
    check_writable(path.parent, option)


def check_replaceable(
    path: Path, is_result: Callable[[Path], bool], option: str = '--out'
) -> None:
    """
    Raise ConfigError for a folder that a result may not take the place of, also as check_writable.

    is_result: whether a folder holds an earlier result. The working directory, a folder around it,
    a link, a file and a folder of other files are no such place.
    """
    if os.path.islink(path):  # Path's own raises for a name that cannot be
        raise ConfigError(f'{option} {path} is a link: give the folder itself')
    check_writable(path, option)
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ConfigError(
            f'{option} {path} is the working directory or around it, which cannot be replaced: '
            'give a new folder'
        )
    if path.is_dir() and any(path.iterdir()) and not is_result(path):
        raise ConfigError(f'{option} {path} holds other files: give a new folder')


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
