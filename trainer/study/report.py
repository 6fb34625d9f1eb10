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
from ood_perception.reports.markdown import markdown_table, percent
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
    config.report.write_text('\n'.join(_parts(config, source, document)), encoding='utf-8')
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
    costs: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return costs


def _parts(config: LeaderboardConfig, source: Path, document: dict[str, Any]) -> list[str]:
    parts = _introduction(config, source, document)
    for data, record in document['sets'].items():
        parts.append(f'### {data} ({record["pictures"]} pictures)\n')
        for region, rows in record['regions'].items():
            parts += [f'{REGION_TITLES[region].capitalize()}:\n', _table(rows, region)]
            parts += _against(record['against'][region])
    parts += ['### Cost of the head\n', _costs(config, document['costs'])]
    return parts


def _introduction(config: LeaderboardConfig, source: Path, document: dict[str, Any]) -> list[str]:
    """Return the title, the command, how to read the tables, and what is missing."""
    parts = [
        f'# {config.title}\n',
        f'Made by `python -m trainer study {source}`. What differs from the papers, '
        'head by head: [heads](../heads/README.md). The columns: [metrics.md](../metrics.md) and '
        '[report.md](../report.md).\n',
        'Percent: the mean over seeds, with 95 % bootstrap intervals over pictures '
        f'({RESAMPLES} resamples). Differences in AP are paired, row minus '
        f'{config.reference}, over the seeds that both have; "-" where a column is not defined. '
        'The backbone runs in float32.\n',
    ]
    parts += _missing(config, document['missing'])
    if document['taken']:
        parts.append(f'Bundles trained by their own commands: {"; ".join(document["taken"])}.\n')
    return parts


def _missing(config: LeaderboardConfig, missing: Mapping[str, str]) -> list[str]:
    """Name the rows without any bundle, with the reason; and seeds that other rows lack."""
    absent, lacking = [], {}
    for row in config.rows:
        gone = [(name, seed) for name, seed in row.runs() if name in missing]
        if gone and len(gone) == len(row.runs()):
            why = missing[gone[0][0]]
            absent.append(f'{row.name} ({why})' if why else row.name)
        elif gone:
            lacking[row.name] = ', '.join(str(seed) for _, seed in gone)
    parts = [f'Not run yet: {"; ".join(absent)}.\n'] if absent else []
    for seeds in dict.fromkeys(lacking.values()):
        names = [name for name, one in lacking.items() if one == seeds]
        parts.append(f'Seeds {seeds} not run yet: {"; ".join(names)}.\n')
    return parts


def _table(rows: dict[str, Any], region: str) -> str:
    metrics = [m for m in METRICS if region == 'ground' or m != 'average_precision_missed']
    lines = []
    for name, values in rows.items():
        cells = [percent(values[m]['mean'], values[m]['interval']) for m in metrics]
        spread = [v for v in values['average_precision']['seeds'] if v is not None]
        many = f', {percent(min(spread))} to {percent(max(spread))}' if len(spread) > 1 else ''
        difference = _difference_cell(values['difference'])
        lines.append([name, *cells, difference, f'{len(spread)}{many}'])
    header = ['head', *(METRICS[m] for m in metrics), 'difference in AP']
    return markdown_table([*header, 'seeds, their AP'], lines)


def _against(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of what rows name to be compared with; [] where none does."""
    header = ['row', 'against', 'difference in AP']
    lines = [[d['row'], d['other'], _difference_cell(d['difference'])] for d in differences]
    return [markdown_table(header, lines)] if lines else []


def _difference_cell(interval: Sequence[float | None] | None) -> str:
    if interval is None or interval[0] is None or interval[1] is None:
        return '-'
    verdict = 'better' if interval[0] > 0 else 'worse' if interval[1] < 0 else 'not resolved'
    return f'[{percent(interval[0])}, {percent(interval[1])}] {verdict}'


def _costs(config: LeaderboardConfig, costs: dict[str, Any]) -> str:
    """Return parameters and time of every row; the sentence says on what the time was taken."""
    lines = [
        [
            row.name,
            f'{costs[row.name]["parameters"]:,}',
            f'{costs[row.name]["head_ms"]:.0f}' if 'head_ms' in costs[row.name] else '-',
        ]
        for row in config.rows
        if row.name in costs
    ]
    settings = {
        f'{one["setting"]["runtime"]}, {one["setting"]["threads"]} threads, '
        f'{one["setting"]["processor"]}'
        for one in costs.values()
        if 'setting' in one
    }
    text = (
        'What comes behind the backbone: values in its graphs (weights, etalons, references, '
        'tables) and milliseconds a frame of the input size'
    )
    text += f' ({"; ".join(sorted(settings))}).\n\n' if settings else '.\n\n'
    return text + markdown_table(['head', 'parameters', 'ms a frame'], lines)
