# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings in object stores (s3://, gs://, ...): opened as paths are, read by range."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

from ood_perception.errors import DataError, DependencyError, required
from ood_perception.requirements import install_command

# A walk over a file asks for the head of every chunk: little more than it must come with each.
_AHEAD_BYTES = 1 << 16


def is_remote(place: object) -> bool:
    """Return whether a place is a URL, or a path that was made of one."""
    return '://' in str(place)


def recording_path(text: str) -> Path:
    """
    Return a path, or what behaves like one for a URL of an object store.

    Raises DependencyError without universal-pathlib or the store's own package, such as s3fs.
    """
    if not is_remote(text):
        return Path(text)
    remedy = f'{text}: recordings in object stores need {install_command("fleet")}'
    path: Any = required('upath', remedy).UPath(text)
    try:
        path.fs  # noqa: B018  (imports the store's package)
    except ImportError as error:
        raise DependencyError(f'{remedy}; {error}') from error
    except ValueError as error:
        raise DataError(f'{text}: {error}') from error
    return cast(Path, path)


def open_by_range(path: Path) -> BinaryIO:
    """Open a file to read; of an object store only the ranges come that are asked for."""
    if not is_remote(path):
        return path.open('rb')
    remote: Any = path
    return cast(BinaryIO, remote.open('rb', block_size=_AHEAD_BYTES, cache_type='readahead'))


def need_range_reader(path: Path) -> None:
    """Raise DataError for a file of an object store that cannot be read by range."""
    if is_remote(path) and path.suffix.lower() != '.mcap':
        raise DataError(
            f'{path} would have to be copied whole: convert it to a plain .mcap by ros2 bag '
            'convert (its chunks may be compressed), or copy it to a disk'
        )
