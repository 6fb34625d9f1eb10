# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Clean frames of many recordings, seen by many workers.

Workers send what costs engine time, and it is kept where one process keeps it (kept.py): the
adaptation then takes it from there, and gives the same bundle, however many there were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ood_perception.adapt.adaptation import observer_of, of_all_classes, seen_frames
from ood_perception.adapt.drive import CleanBag, Drive, open_bag
from ood_perception.bags.remote import recording_path
from ood_perception.errors import DataError, OodPerceptionError
from ood_perception.evaluation.results import run_key, write_bytes
from ood_perception.files import locked
from ood_perception.fleet.ledger import Item, Ledger
from ood_perception.fleet.pool import Cluster, Crew, Files, Worker, work_through
from ood_perception.fleet.recordings import find_recordings
from ood_perception.fleet.worker import check_same, read_files
from ood_perception.loader import Model, open_model
from ood_perception.types import Frame, Tell


@dataclass(frozen=True)
class CleanWork:
    """
    What is seen of every recording.

    values: the node's parameters. bundle_sha256: of the bundle that the driver sees. level,
    frames: see adapt. topics: see open_bag.
    """

    values: Mapping[str, Any]
    bundle_sha256: str
    level: str
    frames: int
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part(Item):
    """A recording's `count` frames of all `total` that are taken, from number `first` on."""

    first: int
    count: int
    total: int


class CleanWorker(Worker):
    """A worker that looks at clean recordings; work: a CleanWork."""

    def open(self, stack: ExitStack) -> Model:
        """Return the model."""
        model = open_model(self.work.values, create=of_all_classes)
        stack.enter_context(model.engine)
        check_same(model.bundle, self.work.bundle_sha256)
        return model

    def results(self, opened: Model, item: Part) -> dict[str, bytes]:
        """Return the files that an Observer keeps of a recording's frames."""
        drive = open_bag(recording_path(item.place), self.work.topics).drive(item.count)
        with TemporaryDirectory(prefix='adapt.') as scratch:
            observer, _ = observer_of(opened, self.work.level, Path(scratch))
            with closing(observer):
                seen_frames(observer, drive, first=item.first, total=item.total)
            return read_files(Path(scratch))


def clean_drive(
    words: Sequence[str], work: CleanWork, folder: Path, cluster: Cluster | None, tell: Tell
) -> Drive:
    """
    Let workers see the frames of recordings; return the drive that they make, one after another.

    words: see find_recordings. folder: where an Observer of the same model finds what was seen,
    and the ledger. A recording that cannot be read is told, left out and named in the description;
    DataError where none is left.
    """
    found = find_recordings(words)
    bags: dict[str, CleanBag] = {}
    refused: dict[str, str] = {}
    for one in found:
        try:
            bags[one.place] = open_bag(recording_path(one.place), work.topics)
        except OodPerceptionError as error:
            refused[one.place] = str(error)
            tell(f'{one.place}: {error}')
    parts = _parts([one for one in found if one.place in bags], bags, work.frames)
    values = {k: str(v) for k, v in work.values.items() if k not in ('bundle', 'threads')}
    ledger = Ledger(folder, run_key({**values, 'sha256': work.bundle_sha256, 'of': work.level}))

    def keep(_: Part, files: Files) -> None:
        for name, content in files.items():
            write_bytes(folder / name, content)

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / 'ledger'):
        crew = Crew(CleanWorker, work, 'recording', keep, cluster)
        work_through(ledger, parts, crew, tell)
    refused |= {part.place: reason for part in parts if (reason := ledger.failure(part))}
    drives = [bags[p.place].drive(p.count) for p in parts if p.place not in refused]
    if not drives:
        raise DataError(f'{" ".join(words)}: none of {len(found)} recordings can be read')
    names = ', '.join(Path(place).name for place in refused)
    without = f', without {names}, which cannot be read' if names else ''
    return _one_after_another(f'{len(found) - len(refused)} recordings{without}', drives)


def _parts(found: Sequence[Item], bags: Mapping[str, CleanBag], limit: int) -> list[Part]:
    """Share the frames that are taken among the recordings by how many each has."""
    total = sum(bags[one.place].count for one in found)
    taken, before, parts = min(limit, total), 0, list[Part]()
    for one in found:
        first = taken * before // max(total, 1)
        before += bags[one.place].count
        count = taken * before // max(total, 1) - first
        if count:
            part = Part(one.place, one.name, one.identity, first, count, taken)
            parts.append(replace(part, identity=f'{one.identity} {first} {count} {taken}'))
    return parts


def _one_after_another(description: str, drives: Sequence[Drive]) -> Drive:
    def frames() -> Iterator[Frame]:
        for drive in drives:
            yield from drive.frames()

    return Drive(description, sum(drive.count for drive in drives), frames)
