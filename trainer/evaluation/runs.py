# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of `trainer evaluate`: bundles with their settings, each on every set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle, shipped_bundles
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.measure import Measured
from ood_perception.evaluation.record import RecordSet, records_folder, save_index
from ood_perception.evaluation.results import run_key
from ood_perception.evaluation.run import RunOptions, run_tasks
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.yaml_files import read_yaml

from ..datasets import EvaluationSet, expand_names, open_set
from .backbone_cache import SharedBackbone
from .options import EngineChoice
from .sets import Extras, checked_set, measured_set, picture_tasks, settings_of, summary_of

LOG = logging.getLogger(__name__)
_RUN_KEYS = ('name', 'bundle', 'in_distribution')


@dataclass(frozen=True)
class RunSpec:
    """One run: its name in tables, the bundle's place ('' = the shipped one), its settings."""

    name: str
    bundle: str
    settings: Settings


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

    Bundles are relative to the file, or names of shipped ones. Raises ConfigError naming the file
    and the entry.
    """
    content = read_yaml(path, 'list of runs')
    entries = content.get('runs') if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f'{path}: expected a list "runs" of {", ".join(_RUN_KEYS)}')
    return [_listed(entry, f'{path}: run {number}', path.parent, settings)
            for number, entry in enumerate(entries, 1)]  # fmt: skip


def _listed(entry: Any, place: str, folder: Path, settings: Settings) -> RunSpec:
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - set(_RUN_KEYS):
        raise ConfigError(f'{place} is {entry!r}: expected {", ".join(_RUN_KEYS)}')
    bundle = str(entry.get('bundle') or '')
    if bundle and (bundle not in shipped_bundles() or (folder / bundle).exists()):
        bundle = str(folder / bundle)
    chosen = tuple(entry.get('in_distribution') or settings.in_distribution)
    return RunSpec(
        str(entry['name']),
        bundle,
        replace(settings, in_distribution=chosen),
    )


def evaluate_runs(
    specs: Iterable[RunSpec],
    names: Sequence[str],
    root: Path,
    out: Path,
    choice: EngineChoice,
    options: RunOptions,
    extras: Extras | None = None,
) -> Results:
    """
    Evaluate every run on every set; records go under `out`/pictures and are found again.

    names: sets as open_set knows them. Raises OodPerceptionError for what a user can cause; sets
    are opened before anything runs.
    """
    extras = extras or Extras()
    sets = {
        name: checked_set(open_set(name, root), extras.limit) for name in expand_names(names, root)
    }
    runs = []
    for spec in specs:
        bundle = load_bundle(spec.bundle or default_bundle_path())
        bundle = complete(bundle, choice.weights or None)
        runs.append(_evaluate_run(spec, bundle, sets, out, choice, options, extras))
    return Results(tuple(runs), extras.seed)


def _evaluate_run(
    spec: RunSpec,
    bundle: Bundle,
    sets: dict[str, EvaluationSet],
    out: Path,
    choice: EngineChoice,
    options: RunOptions,
    extras: Extras,
) -> RunResult:
    manifest, chosen = bundle.manifest, spec.settings.in_distribution
    engine_options = EngineOptions(
        choice.runtime, choice.precision, choice.threads, compiled_classes=chosen
    )
    with create_engine(bundle, engine_options) as engine:
        if choice.shared:
            SharedBackbone(choice.shared).attach(engine, bundle)
        pipeline = Pipeline(bundle, engine, spec.settings)
        if pipeline.doubt:
            LOG.warning('%s: %s', spec.name, pipeline.doubt)
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
            pipeline.settings = settings_of(data, manifest, spec.settings, extras)
            measured = measured_set(data, pipeline, extras)
            folder = records_folder(out, key, name)
            records = run_tasks(
                pipeline,
                picture_tasks(data),
                measured,
                folder,
                options,
                f'{spec.name}, {name}',
                _variant(pipeline.settings, measured),
            )
            save_index(folder, records)
            summary = summary_of(pipeline, data, measured, records, extras)
            done[name] = SetRun(data, measured, records, summary)
    known = chosen or manifest.in_distribution
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


def _plain(values: Any) -> Any:
    """Return settings as values that JSON knows."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return values if isinstance(values, (str, int, float, bool, type(None))) else str(values)
