# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What UEM's table compares: its trainings' scores, and LLR with its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ood_perception.evaluation.reports import interval_record

from .seeded_entries import METRICS, Entry, verdict
from .seeded_table import ScoreRow
from .uem_rows import Training

if TYPE_CHECKING:
    from .dev_sets import DevSet
    from .uem_table import UemTable

SCORE_TITLES = {
    'llr': 'LLR',
    'id': 'ID (max-logit)',
    'ood': 'OOD',
    'max_softmax': 'max-softmax',
    'energy': 'energy',
    'entropy': 'entropy',
    'surprisal': 'surprisal',
}


def _rows_of(table: UemTable, training: Training) -> list[list[ScoreRow]]:
    """Return the rows of a training by score, each with its seeds; untrained seeds are absent."""
    seeds = [s for s in table.seeds if (table.stages(training, s).trainer.folder / 'fit').is_dir()]
    return [list(rows) for rows in zip(*(table.rows(training, s) for s in seeds), strict=True)]


def entries_of(table: UemTable, data: DevSet, region: str) -> dict[str, dict[str, Entry]]:
    """Return training or bundle -> score -> entry, of what has been measured."""
    from .uem_table import bundle_row

    found: dict[str, dict[str, Entry]] = {}
    groups = [(t.name, rows) for t in table.config.trainings for rows in _rows_of(table, t)]
    groups += [(name, [bundle_row(name, at)[0]]) for name, at in table.config.bundles.items()]
    for name, rows in groups:
        done = [row for row in rows if table.results.load(row, data.name) is not None]
        if done:
            found.setdefault(name, {})[done[0].score] = Entry(table, done, data.name, region)
    return found


def any_result(table: UemTable, data: DevSet) -> bool:
    """Return whether anything has been measured on a set."""
    return any(table.results.path.glob(f'*-{data.name}.json'))


def record_of(entries: dict[str, dict[str, Entry]]) -> dict[str, Any]:
    """Return the numbers of all entries, and what LLR is better than by the paired bootstrap."""
    record: dict[str, Any] = {'rows': [], 'llr_beats': []}
    seen = set()
    for name, scores in entries.items():
        for score, entry in scores.items():
            source = tuple(row.source for row in entry.rows)
            if (score, source) in seen:  # the segmenter's scores, shown with its first training
                continue
            seen.add((score, source))
            values = {metric: entry.summary(metric) for metric in METRICS}
            seeds = [row.seed for row in entry.rows]
            record['rows'].append({'name': name, 'score': score, 'seeds': seeds, **values})
        if 'llr' in scores:
            record['llr_beats'] += _beats(name, scores, entries)
    return record


def _beats(
    name: str, scores: dict[str, Entry], entries: dict[str, dict[str, Entry]]
) -> list[dict[str, Any]]:
    """Compare a training's LLR with its terms, the first training's and every bundle, in AP."""
    others = {SCORE_TITLES[s]: scores[s] for s in ('id', 'ood') if s in scores}
    first = next(n for n, rows in entries.items() if 'llr' in rows)
    if name != first:
        others[f'LLR of {first}'] = entries[first]['llr']
    others |= {n: rows['surprisal'] for n, rows in entries.items() if 'surprisal' in rows}
    result = []
    for other, entry in others.items():
        interval = scores['llr'].difference(entry)
        values = {'name': name, 'other': other, 'interval': interval_record(interval)}
        result.append({**values, 'verdict': verdict(interval)})
    return result
