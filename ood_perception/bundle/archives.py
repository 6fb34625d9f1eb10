# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Zip files of strangers: their directory is bounded before it is read."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_DIRECTORY_BYTES = 1 << 20
"""Room for 10 000 members of usual names; a bundle has about ten, a wheel some hundreds."""


class _Bounded(io.FileIO):
    """A file that refuses to be read in large pieces: zipfile reads a directory in one."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; BadZipFile for more than MOST_DIRECTORY_BYTES."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(
                f'its directory takes more than {MOST_DIRECTORY_BYTES >> 20} MiB'
            )
        return super().read(size) or b''


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """
    Open a zip file for reading.

    Raises OSError where it cannot be read, zipfile.BadZipFile for what is no zip, has a directory
    of more than 1 MiB, or a member twice. Whoever reads a member looks at its file_size before:
    zipfile gives no more bytes than that.
    """
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        names = [member.filename for member in archive.infolist()]
        if len(set(names)) < len(names):
            raise zipfile.BadZipFile('one of its members is there twice')
        yield archive
