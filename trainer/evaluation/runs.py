# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of `trainer evaluate`: bundles with their settings, each on every set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle, shipped_bundles
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.int8 import INT8, quantization_path
from ood_perception.errors import ConfigError
from ood_perception.evaluation.measure import Measured
from ood_perception.evaluation.record import RecordSet, records_folder, save_index
from ood_perception.evaluation.results import run_key, write_bytes
from ood_perception.evaluation.run import RunOptions, run_one, run_tasks
from ood_perception.files import locked, make_file, sha256_of
from ood_perception.fleet.ledger import Item, Ledger, identified
from ood_perception.fleet.pool import Cluster, Crew, Files, Worker, work_through
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.typed_values import build
from ood_perception.types import EngineOutput
from ood_perception.yaml_files import read_mapping

from ..artifacts import digest
from ..datasets import EvaluationSet, expand_names, open_set
from .options import metadata_of, opened, tell
from .sets import Extras, checked_set, image_tasks, measured_set, settings_of, summary_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSpec:
    """
    One run.

    name: in tables. bundle: its place, '' = the shipped one. view: the further view whose scores
    alone count, '' = all.
    """

    name: str
    bundle: str
    settings: Settings
    view: str = ''


@dataclass(frozen=True)
class SetRun:
    """One run on one set: how it was measured, its records, and what is reported of it."""

    data: EvaluationSet
    measured: Measured
    records: RecordSet
    summary: dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    """One run: facts of bundle, engine and settings; the sets by the name they were asked for."""

    name: str
    facts: dict[str, Any]
    sets: dict[str, SetRun]


@dataclass(frozen=True)
class Results:
    """All runs; seed: of the bootstrap."""

    runs: tuple[RunResult, ...]
    seed: int = 0

    @property
    def skipped(self) -> int:
        """How many images were skipped, over runs and sets."""
        return sum(len(one.records.skipped) for run in self.runs for one in run.sets.values())


def named_bundle(place: str, settings: Settings) -> RunSpec:
    """Return the run of '[NAME=]PLACE'; without a name it is the folder's."""
    name, separator, path = place.partition('=')
    if not separator:
        name, path = (Path(place).resolve().stem if place else 'default'), place
    return RunSpec(name, path, settings)


@dataclass(frozen=True)
class _ListedRun:
    name: Any
    bundle: Any = ''
    in_distribution: tuple[str, ...] | None = None
    views: bool | None = None


@dataclass(frozen=True)
class _RunList:
    runs: tuple[_ListedRun, ...]


def listed_runs(path: Path, settings: Settings) -> list[RunSpec]:
    """
    Read runs from YAML: a list `runs` of {name, bundle, in_distribution, views}; name is needed.

    Bundles are relative to the file, or names of shipped ones. Raises ConfigError naming the file
    and the entry.
    """
    entries = build(_RunList, read_mapping(path, 'list of runs'), str(path)).runs
    if not entries:
        raise ConfigError(f'{path}: the list "runs" is empty: give name, bundle, in_distribution')
    return [_listed(entry, path.parent, settings) for entry in entries]


def _listed(entry: _ListedRun, folder: Path, settings: Settings) -> RunSpec:
    bundle = str(entry.bundle or '')
    if bundle and (bundle not in shipped_bundles() or (folder / bundle).exists()):
        bundle = str(folder / bundle)
    chosen = entry.in_distribution or settings.in_distribution
    views = settings.views if entry.views is None else entry.views
    return RunSpec(str(entry.name), bundle, replace(settings, in_distribution=chosen, views=views))


@dataclass(frozen=True)
class Evaluation:
    """
    How runs are evaluated.

    root: folder of the sets. out: records go under out/images and are cached. engine: for
    the classes that each run chooses. weights: origin of the backbones', '' = as the bundles say.
    shared: folder where bundles of one backbone share its outputs, None = each runs its own.
    cluster: whose workers run the images, each its own engine; None = this process. They read the
    sets below the same root; records are written here alone.
    """

    root: Path
    out: Path
    engine: EngineOptions
    options: RunOptions
    extras: Extras = field(default_factory=Extras)
    weights: str = ''
    shared: Path | None = None
    cluster: Cluster | None = None

    def results(self, specs: Iterable[RunSpec], names: Sequence[str]) -> Results:
        """
        Evaluate every run on every set.

        names: sets as open_set knows them. Raises OodPerceptionError for what a user can cause;
        sets are opened before anything runs.
        """
        sets = {
            name: checked_set(open_set(name, self.root), self.extras)
            for name in expand_names(names, self.root)
        }
        return Results(tuple(self._run(spec, sets) for spec in specs), self.extras.seed)

    @contextmanager
    def opened(self, spec: RunSpec) -> Iterator[tuple[Pipeline, dict[str, Any]]]:
        """Open a run's pipeline; give it with the facts of bundle, engine and settings."""
        with opened(spec.bundle, spec.settings, self.engine, self.weights) as (bundle, pipeline):
            if self.shared:
                share_backbone(pipeline.engine, bundle, self.shared)
            facts = {**metadata_of(bundle, pipeline), 'batch': self.options.batch}
            if spec.view:
                count_one_view(pipeline.engine, spec.view)
                facts['view'] = spec.view
            yield pipeline, facts

    def prepare(
        self, pipeline: Pipeline, spec: RunSpec, data: EvaluationSet
    ) -> tuple[Measured, str]:
        """Give a pipeline the settings of a set; return how it is measured, see run_tasks."""
        pipeline.settings = settings_of(data, pipeline.manifest, spec.settings, self.extras)
        measured = measured_set(data, pipeline, self.extras)
        return measured, _variant(pipeline.settings, measured)

    def _run(self, spec: RunSpec, sets: Mapping[str, EvaluationSet]) -> RunResult:
        with self.opened(spec) as (pipeline, facts):
            if pipeline.doubt:
                LOG.warning('%s: %s', spec.name, pipeline.doubt)
            key = run_key(facts)
            failed = self._by_workers(spec, pipeline, facts, sets) if self.cluster else {}
            done = {}
            for name, data in sets.items():
                measured, variant = self.prepare(pipeline, spec, data)
                folder = records_folder(self.out, key, name)
                records = run_tasks(
                    pipeline,
                    image_tasks(data),
                    measured,
                    folder,
                    self.options,
                    label=f'{spec.name}, {name}',
                    variant=variant,
                    failed=failed.get(name),
                )
                save_index(folder, records)
                summary = summary_of(pipeline, data, measured, records, self.extras)
                done[name] = SetRun(data, measured, records, summary)
            known = spec.settings.in_distribution or pipeline.manifest.in_distribution
        return RunResult(spec.name, {**facts, 'key': key, 'in_distribution': list(known)}, done)

    def _by_workers(
        self,
        spec: RunSpec,
        pipeline: Pipeline,
        facts: dict[str, Any],
        sets: Mapping[str, EvaluationSet],
    ) -> dict[str, dict[str, str]]:
        """Let workers make the records of a run; return why images failed, by set and name."""
        key = run_key(facts)
        folder = self.out / 'images' / key
        images = []
        for name, data in sets.items():
            _, variant = self.prepare(pipeline, spec, data)
            for index, task in enumerate(image_tasks(data)):
                place, unique, identity = identified(f'{name}/{task.name}', task.name, task.files)
                images.append(Image(place, unique, f'{identity}-{variant}', name, index))

        def keep(image: Image, files: Files) -> None:
            for name, content in files.items():
                write_bytes(records_folder(self.out, key, image.data) / name, content)

        crew = Crew(ImageWorker, (self, spec, facts), 'image', keep, self.cluster)
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


def count_one_view(engine: Engine, name: str) -> None:
    """
    Let the scores of one further view count alone: those of the others are 0 from now on.

    The labels stay the whole image's, and with them the region of interest. Raises ConfigError
    for a view that the bundle does not have.
    """
    names = ['', *(view.name for view in engine.manifest.input.views)]
    if name not in names:
        raise ConfigError(f'{engine.manifest.name} has no view {name!r}; it has {names[1:]}')
    compute, place = engine.run, names.index(name)

    def run(images: Any, chosen: Any) -> EngineOutput:
        output = compute(images, chosen)
        counts = np.arange(len(output.surprisal)) % len(names) == place
        return replace(output, surprisal=output.surprisal * counts[:, None, None])

    engine.run = run  # type: ignore[method-assign]


def _variant(settings: Settings, measured: Measured) -> str:
    """Return a short hash of what a set's records depend on beside the run."""
    facts = {
        'roi': settings.roi.mode,
        'in_distribution': list(settings.in_distribution),
        'kind': measured.kind,
        'smallest': measured.smallest,
        'sea': [] if measured.sea is None else measured.sea.tolist(),
    }
    if measured.classes:
        facts |= {'labels': 'confusion', 'reject': measured.reject}
    return run_key(facts)[:8]


def share_backbone(engine: Engine, bundle: Bundle, folder: Path) -> None:
    """
    Let an engine keep what its backbone gave, by graph, weights, quantisation, engine and input.

    What is read again is what was computed, to the bit; every image of a batch, such as a further
    view of a frame, is found again alone. An engine whose first stage is no backbone stays as it
    is. folder: a file of all outputs an image and backbone (8 MB at 378 x 672 with three blocks of
    a ViT-S); it may be deleted at any time.
    """
    stage = bundle.manifest.stages[0]
    if not isinstance(engine, ChainEngine) or not stage.external_data:
        return
    path = bundle.stage_path(stage)
    files = [path, path.resolve().parent / stage.external_data]
    if engine.description['precision'] == INT8:
        files.append(quantization_path(bundle))
    own = folder / digest([*(sha256_of(file) for file in files), engine.description])[:24]
    engine.first_stage = lambda feeds, compute: _outputs(own, feeds, compute)


def _outputs(
    folder: Path, feeds: Sequence[Any], compute: Callable[[], Sequence[Any]]
) -> list[Any]:
    """Return the backbone's outputs for a batch, each (B, ...); feeds: its images, one array."""
    (images,) = feeds
    paths = [folder / f'{_name(image)}.npz' for image in images]
    if not all(path.is_file() for path in paths):
        computed = [np.array(one) for one in compute()]
        for place, path in enumerate(paths):
            if not path.is_file():
                make_file(path, partial(_write, [one[place : place + 1] for one in computed]))
    kept = [_read(path) for path in paths]
    return [np.concatenate(parts) for parts in zip(*kept, strict=True)]


def _name(image: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:24]


def _write(outputs: list[Any], target: Path) -> None:
    with target.open('wb') as file:  # a name would get a suffix
        np.savez(file, *outputs)


def _read(path: Path) -> list[Any]:
    with np.load(path) as found:
        return [found[f'arr_{place}'] for place in range(len(found.files))]
