# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of UEM as JSON and Markdown: means over seeds, intervals over pictures, verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ood_perception.evaluation.bootstrap import (
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)
from ood_perception.evaluation.reports import interval_record, markdown_table, percent, plain

from .ablation_report import REGION_TITLES
from .artefacts import REPORT_FILE, write_json
from .uem_rows import ScoreRow, Training

if TYPE_CHECKING:
    from .uem_sets import DevSet
    from .uem_table import UemTable

METRICS = {'average_precision': 'AP', 'fpr95': 'FPR95', 'auroc': 'AUROC'}
SCORE_TITLES = {
    'llr': 'LLR',
    'id': 'ID (max-logit)',
    'ood': 'OOD',
    'max_softmax': 'max-softmax',
    'energy': 'energy',
    'entropy': 'entropy',
    'surprisal': 'surprisal',
}
Samples = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def mean_interval(samples: Sequence[np.ndarray[Any, Any]]) -> Interval:
    """
    Return the 95 % interval over pictures of the mean over seeds.

    samples: one array (R,) a seed, made with the same draws of pictures.
    """
    return percentile_interval(np.mean(samples, axis=0))


def verdict(difference: Interval) -> str:
    """Say what a paired difference (first - second) of something to be high resolves."""
    if difference.low > 0:
        return 'yes'
    return 'no, worse' if difference.high < 0 else 'not resolved'


class _Entry:
    """One score of one training on one set and region: its rows of all seeds that were run."""

    def __init__(self, table: UemTable, rows: Sequence[ScoreRow], data: str, region: str) -> None:
        results, resamples = table.results, table.config.resamples
        self.rows = rows
        self.records = []
        self.samples: list[Samples] = []
        for row in rows:
            record = results.load(row, data)
            assert record is not None
            self.records.append(record['regions'][region])
            histograms = results.histograms(row, data, region)
            weights = resample_weights(len(histograms.missed), resamples, results.seed)
            self.samples.append(metric_samples(histograms, weights))

    def summary(self, metric: str) -> dict[str, Any]:
        """Return mean, interval over pictures, and least and greatest of the seeds."""
        values = [record[metric] for record in self.records]
        interval = mean_interval([s[metric] for s in self.samples])
        known = [value for value in values if value is not None]
        mean = plain(float(np.mean(known))) if known else None
        return {'mean': mean, 'interval': interval_record(interval), 'seeds': values}

    def difference(self, other: _Entry, metric: str = 'average_precision') -> Interval:
        """Return the paired interval of the difference of the means over common seeds."""
        common = {row.seed for row in self.rows} & {row.seed for row in other.rows}
        return percentile_interval(self._mean(metric, common) - other._mean(metric, common))

    def _mean(self, metric: str, seeds: set[int]) -> np.ndarray[Any, Any]:
        """Return the mean over these seeds in every draw of pictures; of all where none is."""
        chosen = [
            samples[metric]
            for row, samples in zip(self.rows, self.samples, strict=True)
            if row.seed in seeds or not seeds
        ]
        mean: np.ndarray[Any, Any] = np.mean(chosen, axis=0)
        return mean


def write_report(table: UemTable) -> Path:
    """Write uem_table.json into the table's folder and the Markdown report; return the latter."""
    document: dict[str, Any] = {'sets': {}, 'missing': _missing(table)}
    blocks = []
    for data in table.data.sets:
        for region in table.data.regions(data) if _any_result(table, data) else ():
            entries = _entries(table, data, region)
            record = _record(entries)
            document['sets'][f'{data.name}, {region}'] = record
            title = f'### {data.name}, {REGION_TITLES[region]} ({len(data.pictures)} pictures)\n'
            blocks += [title, _rows_table(record), _verdict_table(record)]
    document['segmenters'] = _segmenters(table)
    document['trainings'] = _trainings(table)
    write_json(table.config.folder / 'uem_table.json', document)
    report = table.config.report
    report.parent.mkdir(parents=True, exist_ok=True)
    parts = [_head(table, document), *blocks, _training_table(document)]
    report.write_text('\n'.join(part for part in parts if part), encoding='utf-8')
    return report


def _rows_of(table: UemTable, training: Training) -> list[list[ScoreRow]]:
    """Return the rows of a training by score, each with its seeds; untrained seeds are absent."""
    seeds = [s for s in table.seeds if (table.stages(training, s).trainer.folder / 'fit').is_dir()]
    return [list(rows) for rows in zip(*(table.rows(training, s) for s in seeds), strict=True)]


def _entries(table: UemTable, data: DevSet, region: str) -> dict[str, dict[str, _Entry]]:
    """Return training or bundle -> score -> entry, of what has been measured."""
    from .uem_table import bundle_row

    found: dict[str, dict[str, _Entry]] = {}
    groups = [(t.name, rows) for t in table.config.trainings for rows in _rows_of(table, t)]
    groups += [(name, [bundle_row(name, at)[0]]) for name, at in table.config.bundles.items()]
    for name, rows in groups:
        done = [row for row in rows if table.results.load(row, data.name) is not None]
        if done:
            found.setdefault(name, {})[done[0].score] = _Entry(table, done, data.name, region)
    return found


def _any_result(table: UemTable, data: DevSet) -> bool:
    return any(table.results.path.glob(f'*-{data.name}.json'))


def _record(entries: dict[str, dict[str, _Entry]]) -> dict[str, Any]:
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
    name: str, scores: dict[str, _Entry], entries: dict[str, dict[str, _Entry]]
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


def _rows_table(record: dict[str, Any]) -> str:
    lines = []
    for row in record['rows']:
        cells = [percent(row[m]['mean'], row[m]['interval']) for m in METRICS]
        known = [value for value in row['average_precision']['seeds'] if value is not None]
        spread = f'{percent(min(known))} to {percent(max(known))}' if len(known) > 1 else '-'
        lines.append([row['name'], SCORE_TITLES[row['score']], *cells, spread, str(len(known))])
    header = ['row', 'score', *METRICS.values(), 'AP of the seeds', 'seeds']
    return markdown_table(header, lines)


def _verdict_table(record: dict[str, Any]) -> str:
    lines = [
        [
            row['name'],
            row['other'],
            '[{}, {}]'.format(*map(percent, row['interval'])),
            row['verdict'],
        ]
        for row in record['llr_beats']
    ]
    header = ['LLR of', 'against', 'difference in AP, points', 'LLR is better']
    return markdown_table(header, lines) if lines else ''


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


def _trainings(table: UemTable) -> dict[str, Any]:
    """Return the best step and the AP on held-out pictures with unseen objects, per module."""
    found = {}
    for training in table.config.trainings:
        for seed in table.seeds:
            path = table.stages(training, seed).trainer.folder / 'fit' / REPORT_FILE
            if path.is_file():
                found[f'{training.name}, seed {seed}'] = json.loads(path.read_text())
    return found


def _head(table: UemTable, document: dict[str, Any]) -> str:
    lines = [
        'AP, FPR95 and AUROC in percent over all pixels of a set: the mean over seeds, with 95 % '
        f'bootstrap intervals over pictures ({table.config.resamples} resamples). LLR is better '
        'where the paired interval of the difference in AP excludes zero. '
        f'{"Sliding windows" if table.part.sliding else "Whole pictures"}.\n'
    ]
    for name, values in document['segmenters'].items():
        lines.append(f'Segmenter {name}: mean IoU {percent(values["mean"])}.\n')
    if document['missing']:
        missing = [
            f'{name} (seeds {", ".join(map(str, seeds))})' if seeds else name
            for name, seeds in document['missing'].items()
        ]
        lines.append(f'Not run yet: {"; ".join(missing)}.\n')
    return '\n'.join(lines)


def _training_table(document: dict[str, Any]) -> str:
    lines = [
        [name, str(values['best_step']), percent(max(look[2] for look in values['history']))]
        for name, values in document['trainings'].items()
    ]
    header = ['training', 'best step', 'AP on held-out pictures with unseen objects']
    return '### Trainings\n\n' + markdown_table(header, lines) if lines else ''
