# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A study as JSON and Markdown: means over seeds, intervals over images, paired differences."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.evaluation.record import RecordSet, image_counts, pooled_counts
from ood_perception.evaluation.results import interval_record
from ood_perception.evaluation.second_pass import component_frames
from ood_perception.json_files import write_json
from ood_perception.metrics.binning import coarse_starts
from ood_perception.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)
from ood_perception.metrics.false_alarm_rate import EVERY_GROUP, POOLED, RATES
from ood_perception.metrics.smiyc import component_samples
from ood_perception.reports.html import render
from ood_perception.reports.tables import REGION_TITLES

from ..evaluation.runs import RunResult, SetRun
from ..evaluation.sets import label_reader
from .config import LeaderboardConfig
from .objects import TITLES, bin_titles, object_record

METRICS = {
    'average_precision': 'AP',
    'average_precision_with_outside': 'AP, outside counted',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
    'component_average_precision': 'component-averaged AP',
    'component_f1': 'component F1',
}
COMPONENT_F1 = 'component_f1'
Samples = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


class Entry:
    """
    One row on one set and region: all its seeds, drawn together.

    seeds: seed -> its run. samples: metric -> float64 (R,), the mean over seeds in each draw of
    images.
    """

    def __init__(self, seeds: Mapping[int, SetRun], region: str) -> None:
        records = [run.summary['regions'][region] for run in seeds.values()]
        self.values = {name: [_value(record, name) for record in records] for name in METRICS}
        # One seed's interval of component F1 is in its summary: no second pass over the labels,
        # which takes longer (7 s a row of 65 images) than all the rest.
        self.alone = records[0] if len(seeds) == 1 else None
        self.drawn = {
            seed: _samples(run, region, self.alone is None) for seed, run in seeds.items()
        }
        self.samples: Samples = {name: self._mean(name, self.drawn) for name in METRICS}

    def _mean(self, metric: str, seeds: Collection[int]) -> np.ndarray[Any, Any]:
        """Return the mean over these seeds in each draw of images."""
        return np.mean([self.drawn[seed][metric] for seed in seeds], 0)

    def value(self, metric: str) -> dict[str, Any]:
        """Return mean over seeds, interval over images, and each seed's value."""
        values = self.values[metric]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if known else None
        interval = interval_record(percentile_interval(self.samples[metric]))
        if metric == COMPONENT_F1 and self.alone and self.alone.get('components'):
            interval = self.alone['components']['f1_interval']
        return {'mean': mean, 'interval': interval, 'seeds': values}

    def difference(self, other: Entry, metric: str = 'average_precision') -> Interval:
        """Return the paired interval of this row minus another, over the seeds of both."""
        common = self.drawn.keys() & other.drawn.keys()
        mine, theirs = common or self.drawn, common or other.drawn
        return percentile_interval(self._mean(metric, mine) - other._mean(metric, theirs))


def _value(record: dict[str, Any], metric: str) -> float | None:
    """Return a metric of a region's record; None where it is not defined."""
    if metric == COMPONENT_F1:
        components = record.get('components')
        return components['f1'] if components else None
    return record[metric]


def _samples(run: SetRun, region: str, with_components: bool) -> Samples:
    """
    Return every metric of every draw of images; the draws are the same for all rows.

    with_components: nan for component F1 without.
    """
    weights = resample_weights(len(run.records), RESAMPLES)
    samples = _pixel_samples(run.records, region, weights)
    samples[COMPONENT_F1] = np.full(RESAMPLES, np.nan)
    components = run.summary['regions'][region].get('components')
    if components and with_components:
        read, track = label_reader(run.data), components['track']
        frames = component_frames(run.records, read, track, components['threshold'], region)
        samples[COMPONENT_F1] = component_samples(frames, weights)['mean_f1']
    return samples


def _pixel_samples(
    records: RecordSet, region: str, weights: np.ndarray[Any, np.dtype[np.float64]]
) -> Samples:
    positives, negatives, *_ = pooled_counts(records, region)
    coarse = image_counts(records, region, coarse_starts(positives, negatives))
    return metric_samples(coarse, weights)


def write_report(
    config: LeaderboardConfig,
    source: Path,
    runs: Mapping[str, RunResult],
    reasons: Mapping[str, str] | None = None,
    taken: Sequence[str] = (),
) -> Path:
    """
    Write leaderboard.json into the study's folder and the Markdown report; return the latter.

    source: the study's file. reasons: run -> why it is missing, where that is known. taken: runs
    whose bundle was handed in.
    """
    document: dict[str, Any] = {'costs': read_costs(config.folder / 'costs.json'), 'sets': {}}
    names = [(row.name, name) for row in config.rows for name, _ in row.runs()]
    reasons = reasons or {}
    missing = [name for _, name in names if name not in runs]
    document['missing'] = {name: reasons.get(name, '') for name in missing}
    document['taken'] = [*taken]
    for data in config.sets:
        document['sets'][data] = _set_record(config, runs, data)
    write_json(config.folder / 'leaderboard.json', document)
    config.report.parent.mkdir(parents=True, exist_ok=True)
    config.report.write_text(_markdown(config, source, document), encoding='utf-8')
    return config.report


def _set_record(
    config: LeaderboardConfig, runs: Mapping[str, RunResult], data: str
) -> dict[str, Any]:
    """Return region -> row -> metric -> values, and the paired differences."""
    seeds = {
        row.name: {seed: runs[name].sets[data] for name, seed in row.runs() if name in runs}
        for row in config.rows
    }
    seeds = {name: found for name, found in seeds.items() if found}
    first = next(run for found in seeds.values() for run in found.values())
    if not first.measured.regions:
        return {'images': len(first.records), 'rates': _observed_rates(runs, data)}
    record: dict[str, Any] = {'images': len(first.records), 'regions': {}, 'against': {}}
    for region in first.summary['regions']:
        entries = {name: Entry(found, region) for name, found in seeds.items()}
        reference = entries.get(config.reference)
        record['regions'][region] = {
            name: {metric: entry.value(metric) for metric in METRICS}
            | {'difference': _difference(entry, reference)}
            for name, entry in entries.items()
        }
        record['against'][region] = [
            {'row': row.name, 'other': other, 'difference': _difference(entries[row.name], found)}
            for row in config.rows
            for other in row.against
            if row.name in entries and (found := entries.get(other))
        ]
    if config.objects:
        record['objects'] = {name: object_record(found, region) for name, found in seeds.items()}
    return record


def _observed_rates(runs: Mapping[str, RunResult], data: str) -> dict[str, list[Any]]:
    """Return run -> what is flagged of its in-distribution classes, a row a target rate."""
    kept = (EVERY_GROUP, POOLED)
    return {
        name: [
            row
            for row in run.sets[data].summary['rows']
            if (row['group'], row['class_name']) == kept
        ]
        for name, run in runs.items()
    }


def _difference(entry: Entry, reference: Entry | None) -> list[float | None] | None:
    if reference is None or entry is reference:
        return None
    return interval_record(entry.difference(reference))


def read_costs(path: Path) -> dict[str, Any]:
    """Return what measure_costs wrote, nothing where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def _markdown(config: LeaderboardConfig, source: Path, document: dict[str, Any]) -> str:
    absent, lacking = _missing(config, document['missing'])
    costs = document['costs']
    settings = {
        '{runtime}, {threads} threads, {processor}'.format(**one['setting'])
        for one in costs.values()
        if 'setting' in one
    }
    return render(
        'study.md.j2',
        config=config,
        source=source,
        resamples=RESAMPLES,
        document=document,
        metrics=[*METRICS],
        rates=RATES,
        titles=METRICS,
        region_titles=REGION_TITLES,
        absent=absent,
        lacking=lacking,
        settings=sorted(settings),
        object_titles=TITLES,
        bin_titles={kind: bin_titles(kind) for kind in TITLES},
        costs={row.name: costs[row.name] for row in config.rows if row.name in costs},
    )


def _missing(
    config: LeaderboardConfig, missing: Mapping[str, str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the rows without any bundle, with the reason; and seeds -> rows that lack them."""
    absent: list[str] = []
    lacking: dict[str, list[str]] = {}
    for row in config.rows:
        gone = [(name, seed) for name, seed in row.runs() if name in missing]
        if gone and len(gone) == len(row.runs()):
            why = missing[gone[0][0]]
            absent.append(f'{row.name} ({why})' if why else row.name)
        elif gone:
            lacking.setdefault(', '.join(str(seed) for _, seed in gone), []).append(row.name)
    return absent, lacking
