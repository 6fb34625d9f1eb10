# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The ablation's table in Markdown, and what its paired differences resolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ood_perception.evaluation.reports import TITLES, markdown_table, metric_cell, percent

from .rows import Row

REGION_TITLES = {
    'image': 'whole image',
    'ground': 'predicted ground',
    'road': 'road',
}
_METRICS = ('average_precision', 'fpr95', 'auroc')


def set_table(
    rows: Sequence[Row],
    records: Mapping[str, Mapping[str, Any]],
    latencies: Mapping[str, Mapping[str, float]],
) -> str:
    """
    Return the table of one set: a line per row, a block of columns per region.

    records: row name -> record of the row on this set. latencies: row name -> ms by stage.
    """
    regions = list(next(iter(records.values()))['regions'])
    columns = [(region, metric) for region in regions for metric in _columns(region)]
    header = ['varies', 'row', *(f'{REGION_TITLES[r]}: {TITLES[m]}' for r, m in columns)]
    lines = []
    for row in rows:
        values = records[row.name]['regions']
        cells = [metric_cell(values[region], metric) for region, metric in columns]
        lines.append([row.varies, row.name, *cells, *_latency_cells(latencies.get(row.name, {}))])
    return markdown_table([*header, 'head, ms', 'backbone + head, ms'], lines)


def _columns(region: str) -> tuple[str, ...]:
    """Name the metrics of a region; a predicted one also shows what it loses."""
    if region == 'ground':
        return (_METRICS[0], 'average_precision_missed', *_METRICS[1:])
    return _METRICS


def _latency_cells(latency: Mapping[str, float]) -> list[str]:
    """Write milliseconds, '-' where not measured."""
    return [f'{latency[key]:.0f}' if key in latency else '-' for key in ('head_ms', 'total_ms')]


def difference_table(reference: str, differences: Mapping[str, Mapping[str, Any]]) -> str:
    """
    Return 'reference minus row' per set and region.

    differences: row name -> {'set, region' -> metric -> {'interval', 'resolved'}}.
    """
    places = list(next(iter(differences.values())))
    lines = [
        [name, *(_difference_cell(values[place]['average_precision']) for place in places)]
        for name, values in differences.items()
    ]
    return markdown_table([f'AP of {reference} minus', *places], lines)


def _difference_cell(difference: Mapping[str, Any]) -> str:
    """Write the interval in percent points and whether zero lies outside."""
    low, high = difference['interval']
    if low is None:
        return '-'
    verdict = ('better' if low > 0 else 'worse') if difference['resolved'] else 'not resolved'
    return f'[{percent(low)}, {percent(high)}] {verdict}'
