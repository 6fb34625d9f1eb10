# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of `trainer evaluate`: bundles with their settings, each on every set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.measure import Measured
from ood_perception.evaluation.record import RecordSet
from ood_perception.evaluation.reports import plain
from ood_perception.evaluation.results import records_folder, run_key, save_index, skipped_record
from ood_perception.evaluation.run import PictureTask, RunOptions, run_tasks
from ood_perception.evaluation.second_pass import component_summary, exact_metrics
from ood_perception.evaluation.summary import anomaly_summary, promise_summary
from ood_perception.pipeline import Pipeline, Settings

from .datasets import EvaluationSet, open_set

LOG = logging.getLogger(__name__)
ANOMALY_KINDS = ('anomaly', 'inspection')
_RUN_KEYS = ('name', 'bundle', 'in_distribution')


@dataclass(frozen=True)
class RunSpec:
    """One run: its name in tables, the bundle's place ('' = the shipped one), its settings."""

    name: str
    bundle: str
    settings: Settings


@dataclass(frozen=True)
class EngineChoice:
    """See EngineOptions; weights: origin of the backbone's weights, '' = as the bundle says."""

    runtime: str = 'auto'
    precision: str = 'auto'
    threads: int = 0
    weights: str = ''


@dataclass(frozen=True)
class SetRun:
    """One run on one set: what was measured of it, and its records."""

    data: EvaluationSet
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
        """How many pictures were skipped, over runs and sets."""
        return sum(len(one.records.skipped) for run in self.runs for one in run.sets.values())


def named_bundle(place: str, settings: Settings) -> RunSpec:
    """Return the run of '[NAME=]PLACE'; without a name it is the folder's."""
    name, separator, path = place.partition('=')
    if not separator:
        name, path = (Path(place).resolve().stem if place else 'default'), place
    return RunSpec(name, path, settings)


def listed_runs(path: Path, settings: Settings) -> list[RunSpec]:
    """
    Read runs from YAML: a list `runs` of {name, bundle, in_distribution}; only name is needed.

    Bundles are relative to the file. Raises ConfigError naming the file and the entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} cannot be read: {error}') from error
    entries = content.get('runs') if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f'{path}: expected a list "runs" of {", ".join(_RUN_KEYS)}')
    return [_listed(entry, f'{path}: run {number}', path.parent, settings)
            for number, entry in enumerate(entries, 1)]  # fmt: skip


def _listed(entry: Any, place: str, folder: Path, settings: Settings) -> RunSpec:
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - set(_RUN_KEYS):
        raise ConfigError(f'{place} is {entry!r}: expected {", ".join(_RUN_KEYS)}')
    bundle = str(entry.get('bundle') or '')
    chosen = tuple(entry.get('in_distribution') or settings.in_distribution)
    return RunSpec(
        str(entry['name']),
        str(folder / bundle) if bundle else '',
        replace(settings, in_distribution=chosen),
    )


def evaluate_runs(
    specs: Iterable[RunSpec],
    names: Sequence[str],
    root: Path,
    out: Path,
    choice: EngineChoice,
    options: RunOptions,
    limit: int = 0,
    exact: bool = False,
    seed: int = 0,
) -> Results:
    """
    Evaluate every run on every set; records go under `out`/pictures and are found again.

    names: sets as open_set knows them. limit: first pictures of each set only, 0 = all.
    exact: metrics without binning, too (reads every picture's labels once more).
    Raises OodPerceptionError for what a user can cause; sets are opened before anything runs.
    """
    sets = {name: _checked(open_set(name, root), limit) for name in names}
    runs = []
    for spec in specs:
        bundle = load_bundle(spec.bundle or default_bundle_path())
        bundle = complete(bundle, choice.weights or None)
        runs.append(_evaluate_run(spec, bundle, sets, out, choice, options, exact, seed))
    return Results(tuple(runs), seed)


def _checked(data: EvaluationSet, limit: int) -> EvaluationSet:
    """Return the set, cut to `limit`; ConfigError for one that cannot be measured here."""
    if not data.labelled:
        raise ConfigError(f'{data.name} has no labels: it can be submitted, not evaluated')
    if data.kind not in (*ANOMALY_KINDS, 'closed-set'):
        raise ConfigError(f'{data.name} is a {data.kind} set: trainer evaluate cannot do it yet')
    if limit:
        chosen = range(min(limit, len(data)))
        return replace(data, pictures=data.pictures.subset(chosen))
    return data


def _evaluate_run(
    spec: RunSpec,
    bundle: Bundle,
    sets: dict[str, EvaluationSet],
    out: Path,
    choice: EngineChoice,
    options: RunOptions,
    exact: bool,
    seed: int,
) -> RunResult:
    manifest, chosen = bundle.manifest, spec.settings.in_distribution
    engine_options = EngineOptions(
        choice.runtime, choice.precision, choice.threads, compiled_classes=chosen
    )
    with create_engine(bundle, engine_options) as engine:
        pipeline = Pipeline(bundle, engine, spec.settings)
        facts = {
            'bundle': manifest.name,
            'bundle_sha256': bundle.sha256,
            'engine': dict(engine.description),
            'settings': _plain(asdict(spec.settings)),
            'batch': options.batch,
        }
        key = run_key(facts)
        done: dict[str, SetRun] = {}
        for name, data in sets.items():
            measured = _measured(data, pipeline)
            folder = records_folder(out, key, name)
            label = f'{spec.name}, {name}'
            records = run_tasks(pipeline, _tasks(data), measured, folder, options, label)
            save_index(folder, records)
            summary = _summary(pipeline, data, records, seed)
            _second_pass(summary, data, records, exact, folder, seed)
            done[name] = SetRun(data, records, summary)
    known = chosen or manifest.in_distribution
    return RunResult(spec.name, {**facts, 'key': key, 'in_distribution': list(known)}, done)


def _second_pass(
    summary: dict[str, Any],
    data: EvaluationSet,
    records: RecordSet,
    exact: bool,
    folder: Path,
    seed: int,
) -> None:
    """Add what needs the labels again: component metrics of a track, exact pixel metrics."""
    regions, read = summary.get('regions', {}), picture_reader(data)
    if data.track and regions:
        threshold = next(iter(regions.values()))['threshold']
        if threshold is not None:
            summary['components'] = component_summary(records, read, data.track, threshold, seed)
    for region, record in regions.items() if exact else ():
        values = exact_metrics(records, read, region, folder)
        lost = record['positives'] / max(1, record['positives'] + record['missed'])
        values['average_precision_missed'] = values['average_precision'] * lost
        for name, value in values.items():
            record[name] = plain(value)
            record['bounds'][name] = [plain(value), plain(value)]


def picture_reader(data: EvaluationSet) -> Callable[[str], Any]:
    """Return what reads a picture and its labels by name."""
    pictures = data.pictures
    return lambda name: pictures.read(pictures.names.index(name))


def _plain(values: Any) -> Any:
    """Return settings as values that JSON knows."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return values if isinstance(values, (str, int, float, bool, type(None))) else str(values)


def _tasks(data: EvaluationSet) -> list[PictureTask]:
    """Return one task a picture."""
    pictures = data.pictures

    def reader(index: int) -> Any:
        return lambda: pictures.read(index)

    return [
        PictureTask(
            name, pictures.sequences[index],
            (pictures.images[index], pictures.labels[index]), reader(index),
        )
        for index, name in enumerate(pictures.names)
    ]  # fmt: skip


def _measured(data: EvaluationSet, pipeline: Pipeline) -> Measured:
    """Return how a set is measured; ConfigError where bundle and set know other classes."""
    if data.kind in ANOMALY_KINDS:
        return Measured(0, data.roi == 'image')
    manifest = pipeline.manifest
    names = tuple(spec.name for spec in manifest.classes)
    if names != data.pictures.classes.names:
        raise ConfigError(
            f'bundle {manifest.name} knows {list(names)}, the pictures are labelled with '
            f'{list(data.pictures.classes.names)}: the promise needs the same classes'
        )
    return Measured(len(names))


def _summary(
    pipeline: Pipeline, data: EvaluationSet, records: RecordSet, seed: int
) -> dict[str, Any]:
    """Return everything that is reported of a run on a set."""
    manifest = pipeline.manifest
    head = {
        'title': data.title,
        'kind': data.kind,
        'roi': data.roi,
        'licence': data.licence,
        'count': len(records),
        'skipped': skipped_record(records.skipped),
    }
    if data.kind in ANOMALY_KINDS:
        return head | anomaly_summary(records, data.roi == 'image', manifest.input.patch, seed)
    names = [spec.name for spec in manifest.classes]
    chosen = pipeline.settings.in_distribution or manifest.in_distribution
    return head | promise_summary(records, names, chosen, seed)
