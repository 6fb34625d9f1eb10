# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of UEM as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.evaluation.reports import markdown_table, percent

from ..artefacts import write_json
from .ablation_report import REGION_TITLES
from .seeded_entries import fit_reports, fits_table, rows_table, verdict_table
from .seeded_table import ScoreRow
from .uem_entries import SCORE_TITLES, any_result, entries_of, record_of

if TYPE_CHECKING:
    from .uem_table import UemTable

AGAINST = ('LLR of', 'against', 'difference in AP, points', 'LLR is better')


def write_report(table: UemTable) -> Path:
    """Write uem_table.json into the table's folder and the Markdown report; return the latter."""
    document: dict[str, Any] = {'sets': {}, 'missing': _missing(table)}
    blocks = []
    for data in table.data.sets:
        for region in table.data.regions(data) if any_result(table, data) else ():
            entries = entries_of(table, data, region)
            record = record_of(entries)
            document['sets'][f'{data.name}, {region}'] = record
            title = f'### {data.name}, {REGION_TITLES[region]} ({len(data.pictures)} pictures)\n'
            rows = rows_table(
                record['rows'], ['row', 'score'], lambda r: [r['name'], SCORE_TITLES[r['score']]]
            )
            blocks += [title, rows, verdict_table(record['llr_beats'], AGAINST)]
    document['segmenters'] = _segmenters(table)
    document['closed_sets'] = _closed_sets(table)
    document['trainings'] = fit_reports(table)
    write_json(table.config.folder / 'uem_table.json', document)
    report = table.config.report
    report.parent.mkdir(parents=True, exist_ok=True)
    parts = [_head(table, document), *blocks, _closed_set_tables(document)]
    parts.append(fits_table(document['trainings']))
    report.write_text('\n'.join(part for part in parts if part), encoding='utf-8')
    return report


def _missing(table: UemTable) -> dict[str, list[int]]:
    """Return training -> seeds, and bundle -> [], of what some set has no result of yet."""
    from .uem_table import bundle_row

    def lacks(rows: Sequence[ScoreRow]) -> bool:
        sets = [data.name for data in table.data.sets]
        return any(table.results.load(row, name) is None for row in rows for name in sets)

    seeds = {
        training.name: [s for s in table.seeds if lacks(table.rows(training, s))]
        for training in table.config.trainings
    }
    missing = {name: found for name, found in seeds.items() if found}
    bundles = table.config.bundles.items()
    return missing | {name: [] for name, at in bundles if lacks([bundle_row(name, at)[0]])}


def _segmenters(table: UemTable) -> dict[str, Any]:
    """Return the mean IoU of every segmenter on labelled splits, as far as measured."""
    folder = table.config.folder / 'segmenters'
    files = sorted(folder.glob('*-*-*.json')) if folder.is_dir() else []
    return {path.stem: json.loads(path.read_text()) for path in files}


def _closed_sets(table: UemTable) -> dict[str, Any]:
    """Return the mean IoU of segmenters alone and inside heads with UEM, as far as measured."""
    folder = table.config.folder / 'closed_set'
    files = sorted(folder.glob('*.json')) if folder.is_dir() else []
    return {path.stem: json.loads(path.read_text()) for path in files}


def _head(table: UemTable, document: dict[str, Any]) -> str:
    lines = [
        'AP, FPR95 and AUROC in percent over all pixels of a set: the mean over seeds, with 95 % '
        f'bootstrap intervals over pictures ({table.config.resamples} resamples). LLR is better '
        'where the paired interval of the difference in AP excludes zero. '
        f'{"Sliding windows" if table.part.sliding else "Whole pictures"}.\n'
    ]
    if document['missing']:
        missing = [
            f'{name} (seeds {", ".join(map(str, seeds))})' if seeds else name
            for name, seeds in document['missing'].items()
        ]
        lines.append(f'Not run yet: {"; ".join(missing)}.\n')
    return '\n'.join(lines)


def _closed_set_tables(document: dict[str, Any]) -> str:
    """Return the mean IoU of every segmenter, and with and without UEM."""
    parts = []
    if document['segmenters']:
        lines = [
            [name, values['split'], percent(values['mean'])]
            for name, values in document['segmenters'].items()
        ]
        header = ['segmenter, seed', 'split', 'mean IoU']
        parts.append('### Segmenters, at label size\n\n' + markdown_table(header, lines))
    if document['closed_sets']:
        lines = [
            [
                *(v['training'], str(v['seed']), v['split']),
                *(percent(v['without']), percent(v['with']), str(v['different'])),
            ]
            for v in document['closed_sets'].values()
        ]
        header = ['training', 'seed', 'split', 'without UEM', 'with UEM', 'labels that differ']
        title = "### Mean IoU of the labels that are served, on the head's grid\n\n"
        parts.append(title + markdown_table(header, lines))
    return '\n'.join(parts)
