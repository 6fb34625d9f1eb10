# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Folders that are made once: each holds the key of what it came from."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ood_perception.bundle.cache import locked, make_folder
from ood_perception.json_files import write_json

LOG = logging.getLogger(__name__)
KEY_FILE = 'key.json'
REPORT_FILE = 'report.json'


def artefact(folder: Path, key: str, make: Callable[[Path], None]) -> None:
    """Make a folder with its key, or keep it where it has that key already."""
    with locked(folder):
        if key_of(folder) == key:
            LOG.info('%s is up to date', folder)
            return

        def fill(target: Path) -> None:
            make(target)
            write_json(target / KEY_FILE, {'key': key})

        make_folder(folder, fill)


def key_of(folder: Path) -> str:
    """Return an artefact's key, '' where there is none."""
    path = folder / KEY_FILE
    return str(json.loads(path.read_text())['key']) if path.is_file() else ''


def adopt(source: Path, target: Path) -> None:
    """
    Let `target` hold the same files as another artefact, unless it is an artefact already.

    A wrong guess costs time, never truth: the key comes along, and where it does not fit the
    folder is made again.
    """
    if not key_of(source) or key_of(target):
        return

    def fill(folder: Path) -> None:
        for file in source.iterdir():
            try:
                os.link(file, folder / file.name)
            except OSError:  # another file system
                shutil.copyfile(file, folder / file.name)

    with locked(target):
        make_folder(target, fill)
