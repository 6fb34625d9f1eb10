# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of `trainer evaluate`: bundles with their settings, each on every set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ood_perception.bundle.store import shipped_bundles
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.measure import Measured
from ood_perception.evaluation.record import RecordSet, records_folder, save_index
from ood_perception.evaluation.results import run_key
from ood_perception.evaluation.run import RunOptions, run_tasks
from ood_perception.fleet.pool import Cluster
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.typed_values import build
from ood_perception.yaml_files import read_mapping

from ..datasets import EvaluationSet, expand_names, open_set
from .engines import count_one_view, share_backbone
from .options import metadata_of, opened
from .sets import Extras, checked_set, image_tasks, measured_set, settings_of, summary_of
from .workers import by_workers

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
            failed = by_workers(self, spec, pipeline, facts, sets) if self.cluster else {}
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
