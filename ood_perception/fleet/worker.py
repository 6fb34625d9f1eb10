# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings one after the other through one engine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ood_perception.bags.remote import recording_path
from ood_perception.bags.replay import ReplayOptions, evaluate
from ood_perception.bundle.store import Bundle
from ood_perception.errors import ConfigError
from ood_perception.image.decode import Otherwise
from ood_perception.loader import Model, open_model
from ood_perception.texts import tell

from .ledger import Item
from .mining import Miner
from .pool import Worker

Models = tuple[Model, Model | None]


@dataclass(frozen=True)
class Work:
    """
    What is done with every recording.

    values: the node's parameters. options: bag and out are of each recording's own. bundle_sha256:
    of the bundle that the driver sees. second: a bundle to disagree with, '' for none. mined:
    frames that are kept of a recording by each reason. otherwise: see bags.replay.evaluate.
    """

    values: Mapping[str, Any]
    options: ReplayOptions
    bundle_sha256: str
    second: str = ''
    mined: int = 2
    otherwise: Otherwise | None = None


class RecordingWorker(Worker):
    """A worker that evaluates recordings; work: a Work."""

    def open(self, stack: ExitStack) -> Models:
        """Return the model, and the second one where there is one."""
        work: Work = self.work
        model = open_model(work.values, tell, max(1, work.options.batch))
        stack.enter_context(model.engine)
        check_same(model.bundle, work.bundle_sha256)
        if not work.second:
            return model, None
        second = open_model({**work.values, 'bundle': work.second}, tell)
        stack.enter_context(second.engine)
        return model, second

    def results(self, opened: Models, item: Item) -> dict[str, bytes]:
        """Return all files of a recording's evaluation."""
        miner = Miner(*opened, self.work.mined)
        with tempfile.TemporaryDirectory(prefix='fleet.') as scratch:
            out = Path(scratch) / 'result'
            bag = recording_path(item.place)
            truth = tuple(_own_labels(one, bag) for one in self.work.options.ground_truth)
            options = replace(self.work.options, bag=bag, out=out, ground_truth=truth)
            evaluate(options, opened[0], _unheard, self.work.otherwise, miner)
            return read_files(out)


def check_same(bundle: Bundle, sha256: str) -> None:
    """Raise ConfigError where a worker sees another bundle than the driver."""
    if bundle.sha256 != sha256:
        raise ConfigError(
            f'bundle {bundle.manifest.name} is another one here (sha256 {bundle.sha256[:16]}, not '
            f'{sha256[:16]}): give every machine the same'
        )


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, by their path in it."""
    files = [file for file in folder.rglob('*') if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, by their path in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _own_labels(entry: str, bag: Path) -> str:
    """Return an entry of --ground-truth; of a folder of folders, the one of the bag's name."""
    camera, equals, place = entry.rpartition('=')
    own = Path(place) / bag.name.split('.')[0]
    return f'{camera}{equals}{own}' if own.is_dir() else entry


def _unheard(text: str) -> None:
    """What a recording says of itself stands in its report."""
