# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of RPL as JSON and Markdown: means over seeds, intervals over pictures, verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.evaluation.reports import interval_record, markdown_table, percent

from ..artefacts import write_json
from .ablation_report import REGION_TITLES
from .rpl_rows import FROZEN, RESIDUAL, RplRow
from .seeded_entries import (
    METRICS,
    Entry,
    fit_reports,
    fits_table,
    rows_table,
    verdict,
    verdict_table,
)

if TYPE_CHECKING:
    from .dev_sets import DevSet
    from .rpl_table import RplTable

AGAINST = ('row', 'against', 'difference in AP, points', 'better')


def write_report(table: RplTable) -> Path:
    """Write rpl_table.json into the table's folder and the Markdown report; return the latter."""
    document: dict[str, Any] = {'missing': _missing(table), 'sets': {}}
    blocks = []
    for data in table.data.sets:
        for region in table.data.regions(data):
            record = _record(table, data, region)
            if not record['rows']:
                continue
            document['sets'][f'{data.name}, {region}'] = record
            title = f'### {data.name}, {REGION_TITLES[region]} ({len(data.pictures)} pictures)\n'
            rows = rows_table(record['rows'], ['row'], lambda row: [row['name']])
            blocks += [title, rows, verdict_table(record['verdicts'], AGAINST)]
    document['trainings'], document['hosts'] = fit_reports(table), _hosts(table)
    write_json(table.config.folder / 'rpl_table.json', document)
    report = table.config.report
    report.parent.mkdir(parents=True, exist_ok=True)
    parts = [_head(document), *blocks, fits_table(document['trainings'])]
    parts.append(_host_table(document))
    report.write_text('\n'.join(part for part in parts if part), encoding='utf-8')
    return report


def _done(table: RplTable, row: RplRow, score: str, data: str) -> list[Any]:
    """Return the results of a row that there are, one a seed."""
    found = [
        table.score_rows(row, seed)[score]
        for seed in table.config.seeds
        if (table.stages(row, seed).trainer.folder / 'fit').is_dir()
    ]
    return [one for one in found if table.results.load(one, data) is not None]


def _record(table: RplTable, data: DevSet, region: str) -> dict[str, Any]:
    """Return the numbers of every row, and what each is better than by the paired bootstrap."""
    entries: dict[str, Entry] = {}
    for row in table.config.trainings:
        frozen = f'frozen {row.host}'
        for name, score in ((frozen, FROZEN), (row.name, RESIDUAL)):
            done = _done(table, row, score, data.name)
            # a host without a block is the same for every block on it: the most seeds count
            if done and (name not in entries or len(entries[name].rows) < len(done)):
                entries[name] = Entry(table, done, data.name, region)
    record: dict[str, Any] = {'rows': [], 'verdicts': []}
    for name, entry in entries.items():
        seeds = [one.seed for one in entry.rows]
        values = {metric: entry.summary(metric) for metric in METRICS}
        record['rows'].append({'name': name, 'seeds': seeds, **values})
    for row in table.config.trainings:
        for other in (*row.against, f'frozen {row.host}'):
            if row.name in entries and other in entries:
                interval = entries[row.name].difference(entries[other])
                values = {'name': row.name, 'other': other, 'verdict': verdict(interval)}
                record['verdicts'].append({**values, 'interval': interval_record(interval)})
    return record


def _missing(table: RplTable) -> dict[str, list[int]]:
    """Return row -> seeds of what some set has no result of yet."""
    names = [data.name for data in table.data.sets]
    found = {}
    for row in table.config.trainings:
        lacking = [
            seed
            for seed in table.config.seeds
            if any(
                table.results.load(table.score_rows(row, seed)[RESIDUAL], n) is None for n in names
            )
        ]
        if lacking:
            found[row.name] = lacking
    return found


def _hosts(table: RplTable) -> list[dict[str, Any]]:
    """Return the mean IoU of every host on labelled splits, as far as measured."""
    folder = table.config.folder / 'hosts'
    return [
        {'host': path.stem.rsplit('-', 1)[0], **json.loads(path.read_text())}
        for path in sorted(folder.glob('*.json'))
    ]


def _head(document: dict[str, Any]) -> str:
    lines = [
        '# RPL + CoroCL on the dev sets',
        '',
        'Made by `python -m trainer rpl-table config/train/rpl_table.yaml --closed-set test`. '
        'Percent: means over seeds with 95 % bootstrap intervals over pictures; differences are '
        'paired. *frozen* is the energy of the host without a residual. What these rows are, and '
        'what differs from the paper, is in [rpl.md](rpl.md); they are not comparable with it. '
        'Nothing was chosen on these sets.',
        '',
    ]
    missing = document['missing']
    if missing:
        rows = '; '.join(f'{name} {seeds}' for name, seeds in missing.items())
        lines += [f'Not run yet: {rows}.', '']
    return '\n'.join(lines)


def _host_table(document: dict[str, Any]) -> str:
    lines = [[one['host'], one['split'], percent(one['mean'])] for one in document['hosts']]
    if not lines:
        return ''
    title = '### Hosts\n\nThe block changes no label: these hold with and without it.\n'
    return f'{title}\n{markdown_table(["host and seed", "CamVid split", "mean IoU"], lines)}'
