# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A study as JSON and Markdown: means over seeds, intervals over pictures, paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ood_perception.evaluation.results import interval_record
from ood_perception.json_files import write_json
from ood_perception.metrics.bootstrap import RESAMPLES
from ood_perception.reports.html import render
from ood_perception.reports.tables import REGION_TITLES

from ..evaluation.runs import RunResult
from .config import LeaderboardConfig
from .entry import METRICS, Entry


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
    record: dict[str, Any] = {'pictures': len(first.records), 'regions': {}, 'against': {}}
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
    return record


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
        titles=METRICS,
        region_titles=REGION_TITLES,
        absent=absent,
        lacking=lacking,
        settings=sorted(settings),
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
