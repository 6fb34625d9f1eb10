# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation's report: one page that can be read without knowing the code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ood_perception.types import JsonDict

from . import html as page
from .evaluation_sets import interval_table, set_section
from .tables import comparison_tables, product_table, set_names
from .texts import TEXTS, WORDS
from .worst_images import ShownFrame


def write_report(
    path: Path, document: JsonDict, frames: Sequence[ShownFrame], times: JsonDict
) -> Path:
    """
    Write the page of a document of results.

    document: the content of results.json. frames: the worst ones, see worst.py. times: the content
    of times.json.
    """
    sets, products = set_names(document), product_table(document)[1]
    titles = [
        'In short',
        *(['Products'] if products else []),
        *sets,
        *(['Differences'] if document['comparisons'] else []),
        *(['Skipped pictures'] if _skipped(document) else []),
        *('Time', 'What was run', 'Words'),
    ]
    parts = [_header(document), page.contents(titles), _in_short(document)]
    if products:
        parts.append(_product_section(document))
    parts += [set_section(document, data, frames) for data in sets]
    if document['comparisons']:
        parts.append(differences(document['comparisons']))
    if _skipped(document):
        parts.append(_skipped_section(document))
    parts += [_time_section(times), _run_section(document), _word_section()]
    return page.write_page(path, 'Evaluation', parts)


def differences(comparisons: Sequence[JsonDict]) -> page.Html:
    """Return the section on which run is better."""
    tables = [
        page.table(header, rows, title) for title, header, rows in comparison_tables(comparisons)
    ]
    return page.section('Differences', tables, TEXTS['differences'])


def _header(document: JsonDict) -> page.Html:
    runs, sets = document['runs'], set_names(document)
    pictures = sum(one['count'] for one in runs[0]['sets'].values())
    plural = 's' if len(runs) > 1 else ''
    return page.element(
        'header',
        page.joined([
            page.element('h1', f'Evaluation of {len(runs)} bundle{plural} on {pictures} pictures'),
            page.paragraph(
                f'Sets: {", ".join(sets)}. The pictures went through the same pipeline as on the '
                'robot, and the result was compared with labels drawn by people. In brackets: the '
                'range that other pictures of the same kind would give 95 times in 100.'
            ),
        ]),
    )  # fmt: skip


def _in_short(document: JsonDict) -> page.Html:
    """Return the section with one sentence per set for the first run."""
    first, *others = document['runs']
    lines = [
        f'{first["name"]} on {data}: {_sentence(first["sets"][data])}.' for data in first['sets']
    ]
    if others:
        names = ', '.join(run['name'] for run in others)
        lines.append(f'Compared with it, below and under "Differences": {names}.')
    return page.section('In short', [page.bullets(lines)], TEXTS['in short'])


def _sentence(one: JsonDict) -> str:
    """Say in words what the numbers of a set are."""
    groups = one['groups']
    if 'maritime' in groups:
        return _maritime_sentence(groups['maritime'])
    if 'inspection' in groups:
        return _inspection_sentence(groups['inspection']['values'])
    if 'regions' in one:
        return _anomaly_sentence(one)
    rows = [r for r in one['rows'] if r['group'] == 'all' and r['class_name'] == 'pooled']
    said = [f'{100 * r["observed"]:.2f} % at {100 * r["promised"]:g} %' for r in rows]
    return f'flagged {", ".join(said)} promised, of all pixels that should be left alone'


def _maritime_sentence(group: JsonDict) -> str:
    values, facts = group['values'], group['facts']
    return (
        f'found {facts["found"]} of {facts["obstacles"]} obstacles with {facts["false_alarms"]} '
        f'false alarms on open water; {_percent(values["edge_accuracy"])} of the water edge and '
        f'{_percent(values["mean_iou"])} mIoU are right; Q is {_percent(values["quality"])}'
    )


def _inspection_sentence(values: JsonDict) -> str:
    return (
        f'in {_percent(values["image_auroc"])} of the pairs the defective picture scores higher '
        f'than the flawless one (image AUROC; a guess gives 50 %); where the defects are: AUPRO '
        f'{_percent(values["aupro"])} (100 % is perfect)'
    )


def _anomaly_sentence(one: JsonDict) -> str:
    region = list(one['regions'])[-1]
    record, found = one['regions'][region], one['objects']['all'][0]
    where = {'road': 'on the road', 'ground': 'on the predicted ground'}[region]
    wrong = sum((p['flagged'] or 0) * p['pixels'] for p in one['places'])
    share = wrong / max(1, sum(p['pixels'] for p in one['places']))
    precision = record['average_precision']
    ranked = f'no labelled anomaly lies {where}'
    if precision is not None:
        ranked = f'average precision {_percent(precision)} {where}'
    said = (
        f'{ranked}; the mask found {found["found"]} of {found["objects"]} labelled objects and '
        f'wrongly flagged {100 * share:.2f} % of the rest'
    )
    if 'open_set' in one['groups']:
        values = one['groups']['open_set']['values']
        said += (
            f'; mIoU of the known classes {_percent(values["mean_iou"])}, with unknown where the '
            f'score says so {_percent(values["open_mean_iou"])}'
        )
    return said


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f} %'


def _product_section(document: JsonDict) -> page.Html:
    return page.section('Products', [interval_table(*product_table(document))], TEXTS['products'])


def _skipped(document: JsonDict) -> list[list[str]]:
    return [
        [run['name'], data, row['name'], row['reason']]
        for run in document['runs']
        for data, one in run['sets'].items()
        for row in one['skipped']
    ]


def _skipped_section(document: JsonDict) -> page.Html:
    rows = _skipped(document)
    return page.section(
        'Skipped pictures',
        [page.table(['run', 'set', 'picture', 'why'], rows)],
        f'{len(rows)} pictures could not be read or had wrong labels. No number counts them.',
    )


def _time_section(times: JsonDict) -> page.Html:
    rows = [
        [run, data, *(f'{row[name]:.1f}' for name in ('read', *STAGES, 'measure'))]
        for run, sets in times.items()
        for data, row in sets.items()
    ]
    header = ['run', 'set', 'read files', 'preprocess', 'network', 'postprocess', 'measure']
    return page.section('Time', [page.table(header, rows)], TEXTS['time'])


STAGES = ('preprocess', 'inference', 'postprocess')


def _run_section(document: JsonDict) -> page.Html:
    parts = []
    for run in document['runs']:
        engine = ', '.join(f'{key} {value}' for key, value in run['engine'].items())
        parts.append(page.element('h3', run['name']))
        parts.append(
            page.facts({
                'bundle': run['bundle'],
                'sha256 of its manifest': run['bundle_sha256'],
                'normal classes': ', '.join(run['in_distribution']),
                'false alarm rate of the mask': f'{run["settings"]["false_alarm_rate"]:g}',
                'engine': engine,
            })
        )  # fmt: skip
    return page.section('What was run', parts, TEXTS['runs'])


def _word_section() -> page.Html:
    return page.section('Words', [page.facts(WORDS)])
