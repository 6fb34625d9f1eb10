# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of cDNP as JSON and Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.evaluation.reports import markdown_table

from ..artefacts import write_json
from .ablation_report import difference_table, set_table
from .knn_rows import KnnRow, KnnTableConfig

if TYPE_CHECKING:
    from .knn_table import KnnTable

WIDTH_BYTES = 2  # a float16 value


def write_report(table: KnnTable) -> Path:
    """Write knn_table.json into the table's folder and the Markdown report; return the latter."""
    config, results = table.config, table.results
    records: dict[str, dict[str, Any]] = {}
    for data in table.sets:
        found = {row.name: results.load(row, data.name) for row in config.rows}
        records[data.name] = {name: record for name, record in found.items() if record}
    reference = _reference(config, records)
    differences = _differences(table, reference, records) if reference else {}
    document: dict[str, Any] = {'sets': records, 'differences': differences}
    document['reference'] = reference.name if reference else None
    latency = config.folder / 'latency.json'
    document['latency'] = json.loads(latency.read_text()) if latency.is_file() else None
    write_json(config.folder / 'knn_table.json', document)
    counts = {data.name: len(data.pictures) for data in table.sets}
    text = '\n'.join(_parts(table, document, counts))
    config.report.parent.mkdir(parents=True, exist_ok=True)
    config.report.write_text(text, encoding='utf-8')
    return config.report


def _reference(config: KnnTableConfig, records: dict[str, dict[str, Any]]) -> KnnRow | None:
    """Return the reference; where it has not been run, the first row that has been."""
    rows = sorted(config.rows, key=lambda row: row.name != config.reference)
    done = (row for row in rows if all(row.name in found for found in records.values()))
    return next(done, None)


def _differences(
    table: KnnTable, reference: KnnRow, records: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return row -> 'set, region' -> metric -> interval of reference minus row."""
    config, results = table.config, table.results
    places = [
        (name, region)
        for name, found in records.items()
        for region in found[reference.name]['regions']
    ]
    return {
        row.name: {
            f'{name}, {region}': results.difference(reference, row, name, region)
            for name, region in places
        }
        for row in config.rows
        if row != reference and all(row.name in records[name] for name, _ in places)
    }


def _parts(table: KnnTable, document: dict[str, Any], counts: dict[str, int]) -> list[str]:
    config = table.config
    parts = [
        'AP, FPR95 and AUROC in percent over all pixels of a set, with 95 % bootstrap intervals '
        f'over its pictures ({config.resamples} resamples). Pictures are at most '
        f'{max(config.sets.values())} pixels wide at the network.\n'
    ]
    missing = _missing(config, document['sets'])
    if missing:
        parts.append(f'Not run yet ({len(missing)} rows): {"; ".join(missing)}.\n')
    for name, found in document['sets'].items():
        rows = [row for row in config.rows if row.name in found]
        if rows:
            parts += [f'### {name} ({counts[name]} pictures)\n', _set_table(rows, found)]
    if document['differences']:
        parts.append('### Differences in AP, points\n')
        parts.append(difference_table(document['reference'], document['differences']))
    if document['latency']:
        parts += ['### Time and size\n', latency_text(document['latency'])]
    return parts


def _missing(config: KnnTableConfig, sets: dict[str, Any]) -> list[str]:
    """Name every row that lacks a set, and which, unless it lacks all."""
    found = []
    for row in config.rows:
        lacking = [name for name, records in sets.items() if row.name not in records]
        if lacking:
            every = len(lacking) == len(sets)
            found.append(row.name if every else f'{row.name} on {", ".join(lacking)}')
    return found


def _set_table(rows: list[KnnRow], found: dict[str, Any]) -> str:
    """Return the ablation's table without its columns of latency, which depends on N alone."""
    lines = set_table(rows, found, {}).splitlines()  # type: ignore[arg-type]
    return '\n'.join('|'.join(line.split('|')[:-3]) + '|' for line in lines) + '\n'


def latency_text(record: dict[str, Any]) -> str:
    """Return what measure_latency recorded as a sentence and a table."""
    setting, sizes = record['setting'], record['ms']
    names = {name for ms in sizes.values() for name in ms}
    names = sorted(names, key=lambda name: (name.startswith('faiss'), name))
    lines = [
        [
            f'{int(size):,}',
            f'{int(size) * record["width"] * WIDTH_BYTES / 1e6:.1f}',
            *(f'{ms[name]:.0f}' if name in ms else '-' for name in names),
        ]
        for size, ms in sorted(sizes.items(), key=lambda item: int(item[0]))
    ]
    text = (
        f'Search of one frame, {record["tokens"]} tokens of {record["width"]} values, '
        f'k = {record["k"]}, float32, {setting["threads"]} threads, {setting["processor"]}. '
        'Megabytes are of the references in float16, as a bundle holds them.\n\n'
    )
    return text + markdown_table(['references', 'MB', *(f'{name}, ms' for name in names)], lines)
