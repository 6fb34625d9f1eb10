# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What is known of every recording: one file each, so that a stopped evaluation goes on.

    ledger/<name>.json       which recording, under which settings, done or why not
    recordings/<name>/       its report.json, index.html, frames.csv, counts.npz, to_label/

The results are written first: an entry that says done has them, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.files import make_folder
from ood_perception.json_files import read_json, write_json

from .recordings import Recording

DONE, FAILED = 'done', 'failed'


@dataclass(frozen=True)
class Entry:
    """
    One recording's line.

    place, identity: see Recording. key: of bundle, parameters and options. status: DONE or FAILED.
    reason: why it failed. attempts: how often it was begun. worker: host and process of the last.
    seconds: of the last attempt.
    """

    place: str
    identity: str
    key: str
    status: str
    reason: str = ''
    attempts: int = 1
    worker: str = ''
    seconds: float = 0.0


class Ledger:
    """The entries below a folder, for one key; one process writes."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def entry(self, recording: Recording) -> Entry | None:
        """Return what is known of a recording as it is now, under this key; None for nothing."""
        path = self._path(recording)
        if not path.is_file():
            return None
        try:
            found = Entry(**read_json(path))
        except (ValueError, TypeError) as error:
            raise DataError(f'{path} is no entry of a ledger ({error}): remove it') from error
        now = (recording.place, recording.identity, self.key)
        return found if (found.place, found.identity, found.key) == now else None

    def is_done(self, recording: Recording) -> bool:
        """Return whether a recording needs no other attempt."""
        entry = self.entry(recording)
        return entry is not None and entry.status == DONE

    def add(self, recording: Recording, entry: Entry, files: Mapping[str, bytes]) -> None:
        """Write a recording's results, then its entry; each whole or not at all."""

        def fill(folder: Path) -> None:
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

        if files:
            make_folder(self.results(recording), fill)
        write_json(self._path(recording), asdict(entry))

    def results(self, recording: Recording) -> Path:
        """Return the folder of a recording's results."""
        return self.folder / 'recordings' / recording.name

    def _path(self, recording: Recording) -> Path:
        return self.folder / 'ledger' / f'{recording.name}.json'
