# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One engine that evaluates recordings one after the other, and says of each what became of it."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ood_perception.bags.remote import recording_path
from ood_perception.bags.replay import ReplayOptions, evaluate
from ood_perception.errors import OodPerceptionError
from ood_perception.image.decode import Otherwise
from ood_perception.loader import Model, open_model
from ood_perception.texts import tell

from .mining import Miner
from .recordings import Recording


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


@dataclass(frozen=True)
class Outcome:
    """
    One attempt at a recording.

    files: the results by name, {} where it failed. reason: why it failed. again: another attempt
    may go better.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ''
    again: bool = False
    worker: str = ''
    seconds: float = 0.0


class Worker:
    """Opens the bundle once; a recording never ends it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._models: tuple[Model, Model | None] | None = None
        self._stack = ExitStack()

    def ready(self) -> str:
        """Open the bundle; return why that cannot be, '' where it is open."""
        try:
            self._open()
        except OodPerceptionError as error:
            return f'{platform.node()}: {error}'
        return ''

    def evaluate(self, recording: Recording) -> Outcome:
        """Evaluate a recording; whatever goes wrong is the outcome's reason."""
        start, who = time.monotonic(), f'{platform.node()}:{os.getpid()}'
        try:
            outcome = Outcome(self._results(recording))
        except OodPerceptionError as error:  # the recording's own fault: as bad the next time
            outcome = Outcome(reason=str(error))
        except Exception as error:  # a network, a disk; or a fault of ours, of this one alone
            outcome = Outcome(reason=f'{type(error).__name__}: {error}', again=True)
        return replace(outcome, worker=who, seconds=time.monotonic() - start)

    def close(self) -> None:
        """Close the engines."""
        self._stack.close()

    def _open(self) -> tuple[Model, Model | None]:
        if self._models is None:
            work = self._work
            model = open_model(work.values, tell, max(1, work.options.batch))
            self._stack.enter_context(model.engine)
            if model.bundle.sha256 != work.bundle_sha256:
                raise OodPerceptionError(
                    f'bundle {work.values["bundle"]} is another one here (sha256 '
                    f'{model.bundle.sha256[:16]}, not {work.bundle_sha256[:16]}): give every '
                    'machine the same'
                )
            second = None
            if work.second:
                second = open_model({**work.values, 'bundle': work.second}, tell)
                self._stack.enter_context(second.engine)
            self._models = model, second
        return self._models

    def _results(self, recording: Recording) -> dict[str, bytes]:
        model, second = self._open()
        miner = Miner(model, second, self._work.mined)
        with tempfile.TemporaryDirectory(prefix='fleet.') as scratch:
            out = Path(scratch) / 'result'
            bag = recording_path(recording.place)
            truth = tuple(_own_labels(one, bag) for one in self._work.options.ground_truth)
            options = replace(self._work.options, bag=bag, out=out, ground_truth=truth)
            evaluate(options, model, _unheard, self._work.otherwise, miner)
            files = [file for file in out.rglob('*') if file.is_file()]
            return {str(file.relative_to(out)): file.read_bytes() for file in files}


def _own_labels(entry: str, bag: Path) -> str:
    """Return an entry of --ground-truth; of a folder of folders, the one of the bag's name."""
    camera, equals, place = entry.rpartition('=')
    own = Path(place) / bag.name.split('.')[0]
    return f'{camera}{equals}{own}' if own.is_dir() else entry


def _unheard(text: str) -> None:
    """What a recording says of itself stands in its report."""
