# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The report's sections on single sets: what is shown depends on what was measured of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ood_perception.evaluation.groups import GROUPS
from ood_perception.types import JsonDict

from . import html as page
from .plots import MOST_LINES, calibration_plot, curve_plot, histogram_plot
from .tables import (
    REGION_TITLES,
    found_cells,
    group_names,
    group_table,
    headline_table,
    promise_cells,
)
from .texts import GROUP_TEXTS, LOOKED_AT, TEXTS
from .worst_images import ShownFrame

# promised, observed, its interval
Rate = tuple[float, float | None, Sequence[float | None]]


def set_section(document: JsonDict, data: str, frames: Sequence[ShownFrame]) -> page.Html:
    """Return the section of one set; frames: the worst ones of all sets."""
    first = document['runs'][0]['sets'][data]
    where = LOOKED_AT.get(first['scored'], first['scored'])
    looked = '' if first['kind'] == 'closed-set' else f'The node looks at {where}. '
    intro = page.paragraph(
        f'{first["title"]}: {first["count"]} pictures. {looked}Normal classes: '
        f'{", ".join(first["in_distribution"])}. Licence: {first["licence"]}.',
        'dim',
    )
    parts = [intro, *(page.paragraph(note) for note in first['notes'])]
    for name in group_names(document, data):
        parts += _group_parts(document, data, name)
    if 'regions' in first:
        parts += _anomaly_parts(document, data)
    if 'rows' in first:
        parts += _promise_parts(document, data)
    shown = [page.figure(f.source, f.caption) for f in frames if f.data == data]
    if shown:
        reading = TEXTS[f'worst, {first["kind"]}']
        parts += [page.element('h3', 'Worst frames'), page.paragraph(reading, 'reading')]
        parts.append(page.figures(shown, wide=first['kind'] != 'inspection'))
    return page.section(data, parts)


def _group_parts(document: JsonDict, data: str, name: str) -> list[page.Html]:
    """Return the parts of one group: its table, and what its numbers rest on."""
    first_name, first = next(
        (run['name'], run['sets'][data]['groups'][name])
        for run in document['runs']
        if name in run['sets'][data]['groups']
    )
    parts = [
        page.element('h3', GROUPS[name].title),
        page.paragraph(GROUP_TEXTS[name], 'reading'),
        interval_table(*group_table(document, data, name)),
    ]
    facts = first['facts']
    if name == 'maritime':
        parts.append(
            page.paragraph(
                f'{first_name}: {facts["found"]} of {facts["obstacles"]} obstacles found, '
                f'{facts["false_alarms"]} false alarms on {first["pictures"]} pictures. '
                + TEXTS[f'segments, {facts["segments"]}']
            )
        )
    if name == 'inspection':
        parts.append(
            page.paragraph(
                f'{facts["defective_pictures"]} defective and {facts["flawless_pictures"]} '
                f'flawless pictures, {facts["regions"]} defect regions.'
            )
        )
    if name == 'smiyc' and not facts['track']:
        parts.append(page.paragraph(TEXTS['no size limits']))
    if name == 'open_set':
        parts += _open_set_parts(first_name, facts)
    return parts


def interval_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> page.Html:
    """Return a table whose cells '83.1 [70.2, 91.0]' are broken before the bracket alone."""
    kept = [[cell.replace(', ', ',\u00a0') for cell in row] for row in rows]
    return page.table(header, kept)


def _open_set_parts(run: str, facts: JsonDict) -> list[page.Html]:
    """Return the thresholds of both halves and the classes one by one."""
    folds = [
        [
            ', '.join(fold['sequences']),
            str(fold['pictures']),
            '-' if fold['threshold'] is None else f'{fold["threshold"]:.3f}',
            page_percent(fold['open_mean_iou']),
        ]
        for fold in facts['folds']
    ]
    header = ['half', 'pictures', "threshold (surprisal), from the other half's", 'mIoU, open']
    rows = [
        [row['name'], page_percent(row['iou']), page_percent(row['open_iou'])]
        for row in facts['classes']
    ]
    return [
        page.table(header, folds, f'{run}: halves of the set'),
        page.table(['class', 'IoU, closed', 'IoU, open'], rows, f'{run}: known classes'),
    ]


def _anomaly_parts(document: JsonDict, data: str) -> list[page.Html]:
    """Return the parts of a set of anomalies."""
    runs = {run['name']: run['sets'][data] for run in document['runs']}
    first_name, first = next(iter(runs.items()))
    region = list(first['regions'])[-1]
    records = {name: one['regions'][region] for name, one in runs.items()}
    ground = 'ground' in first['regions']
    reading = TEXTS['headline'] + (TEXTS['headline, regions'] if ground else '')
    where = TEXTS['calibration'] + TEXTS[f'calibration, {first["kind"]}']
    parts = [
        page.element('h3', 'Pixels'),
        page.paragraph(reading, 'reading'),
        interval_table(*headline_table(document, data)),
        page.element('h3', f'Curves, {REGION_TITLES[region]}'),
        page.paragraph(TEXTS['curves'], 'reading'),
        page.drawing(curve_plot(_curves(records), _shares(records)), _limited(runs)),
        page.element('h3', 'Promise and scores'),
        page.paragraph(where, 'reading'),
        page.figures([
            page.drawing(calibration_plot(_anomaly_calibration(runs)), _limited(runs)),
            page.drawing(
                histogram_plot(first['regions'][region]['histogram']), f'scores of {first_name}'
            ),
        ]),
    ]  # fmt: skip
    return parts + _breakdown(first_name, first)


def _breakdown(name: str, one: JsonDict) -> list[page.Html]:
    """Return the tables by size and place of one run."""
    noun = 'defects' if one['kind'] == 'inspection' else 'objects'
    header = ['', noun, 'found', 'of their pixels flagged, %', 'in the region, %']
    places = [
        [row['name'], f'{row["pixels"]:,}', page_percent(row['flagged'])] for row in one['places']
    ]
    by_size = page.table([f'{noun} by size', *header[1:]], found_cells(one['objects']['size']))
    if one['kind'] == 'inspection':  # near and far mean nothing on a product
        title, reading = page.element('h3', f'By size: {name}'), TEXTS['breakdown']
        return [title, page.paragraph(reading, 'reading'), by_size]
    return [
        page.element('h3', f'By size and place: {name}'),
        page.paragraph(TEXTS['breakdown'] + TEXTS['breakdown, place'], 'reading'),
        by_size,
        page.table(['objects by place', *header[1:]], found_cells(one['objects']['place'])),
        page.table(['false alarms', 'normal pixels', 'wrongly flagged'], places),
    ]


def page_percent(value: float | None) -> str:
    """Write a share in percent with two places."""
    return '-' if value is None else f'{100 * value:.2f} %'


def _curves(records: Mapping[str, JsonDict]) -> dict[str, JsonDict]:
    return {name: record['curve'] for name, record in records.items()}


def _shares(records: Mapping[str, JsonDict]) -> dict[str, float]:
    return {
        name: record['positives'] / max(1, record['positives'] + record['negatives'])
        for name, record in records.items()
    }


def _limited(runs: Mapping[str, JsonDict]) -> str:
    return f'the first {MOST_LINES} of {len(runs)} runs' if len(runs) > MOST_LINES else ''


def _anomaly_calibration(runs: Mapping[str, JsonDict]) -> dict[str, list[Rate]]:
    return {
        name: [(r['promised'], r['normal'], r['normal_interval']) for r in one['calibration']]
        for name, one in runs.items()
    }


def _promise_parts(document: JsonDict, data: str) -> list[page.Html]:
    """Return the parts of a set with known classes."""
    lines: dict[str, list[Rate]] = {}
    for run in document['runs']:
        for row in run['sets'][data]['curve']:
            name = row['class_name'] if len(document['runs']) == 1 else (
                f'{run["name"]}, {row["class_name"]}'
            )  # fmt: skip
            value = (row['promised'], row['observed'], row['interval'])
            lines.setdefault(name, []).append(value)
    return [
        page.element('h3', 'Promised and observed'),
        page.paragraph(TEXTS['promise'], 'reading'),
        page.figures([page.drawing(calibration_plot(lines), 'logarithmic, 95 % intervals')]),
        interval_table(*promise_cells(document, data)),
    ]
