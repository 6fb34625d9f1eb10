# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An evaluation's images as tasks of workers, with a ledger; the numbers are those of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.evaluation.record import records_folder
from ood_perception.evaluation.results import run_key, write_bytes
from ood_perception.evaluation.run import run_one
from ood_perception.files import locked
from ood_perception.fleet.ledger import Item, Ledger, identified
from ood_perception.fleet.pool import Crew, Files, Worker, work_through
from ood_perception.pipeline import Pipeline
from ood_perception.texts import tell

from ..datasets import EvaluationSet, open_set
from .sets import image_tasks


def by_workers(
    evaluation: Any,
    spec: Any,
    pipeline: Pipeline,
    facts: dict[str, Any],
    sets: Mapping[str, EvaluationSet],
) -> dict[str, dict[str, str]]:
    """
    Let workers make the records of a run; return why images failed, by set and name.

    evaluation, spec: runs.Evaluation and runs.RunSpec. facts: what a worker must find, too.
    """
    key = run_key(facts)
    folder = evaluation.out / 'images' / key
    images = []
    for name, data in sets.items():
        _, variant = evaluation.prepare(pipeline, spec, data)
        for index, task in enumerate(image_tasks(data)):
            place, unique, identity = identified(f'{name}/{task.name}', task.name, task.files)
            images.append(Image(place, unique, f'{identity}-{variant}', name, index))

    def keep(image: Image, files: Files) -> None:
        for name, content in files.items():
            write_bytes(records_folder(evaluation.out, key, image.data) / name, content)

    crew = Crew(ImageWorker, (evaluation, spec, facts), 'image', keep, evaluation.cluster)
    with locked(folder / 'ledger'):
        ledger = Ledger(folder, key)
        work_through(ledger, images, crew, tell)
    failed: dict[str, dict[str, str]] = {name: {} for name in sets}
    for image in images:
        if reason := ledger.failure(image):
            failed[image.data][sets[image.data].images.names[image.index]] = reason
    return failed


@dataclass(frozen=True)
class Image(Item):
    """One image: the name of its set, and its place there."""

    data: str
    index: int


class ImageWorker(Worker):
    """A worker that makes images' records; work: an Evaluation, a RunSpec, the driver's facts."""

    def open(self, stack: ExitStack) -> tuple[Pipeline, dict[str, EvaluationSet]]:
        """Return the pipeline, and a place for the sets that images are of."""
        evaluation, spec, facts = self.work
        pipeline, here = stack.enter_context(evaluation.opened(spec))
        if here != facts:
            other = [name for name in facts if here[name] != facts[name]]
            raise ConfigError(
                f'bundle {spec.bundle or "shipped"} gives another {", ".join(other)} than where '
                'the command was started: give every machine the same bundle, name --engine and '
                '--precision'
            )
        return pipeline, {}

    def results(self, opened: Any, item: Image) -> dict[str, bytes]:
        """Return an image's record."""
        evaluation, spec, _ = self.work
        pipeline, sets = opened
        if item.data not in sets:
            sets[item.data] = open_set(item.data, evaluation.root)
        data = sets[item.data]
        measured, variant = evaluation.prepare(pipeline, spec, data)
        with TemporaryDirectory(prefix='evaluate.') as scratch:
            task = image_tasks(data)[item.index]
            record = run_one(pipeline, task, measured, Path(scratch), variant)
            return {record.name: record.read_bytes()}
