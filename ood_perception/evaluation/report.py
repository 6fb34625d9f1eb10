# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation's report: one page that can be read without knowing the code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..types import JsonDict
from . import page
from .plots import MOST_LINES, calibration_plot, curve_plot, histogram_plot
from .report_texts import TEXTS, WORDS
from .tables import (
    REGION_TITLES,
    comparison_table,
    found_cells,
    headline_table,
    promise_cells,
    set_names,
)

# promised, observed, its interval
Rate = tuple[float, float | None, Sequence[float | None]]


@dataclass(frozen=True)
class ShownFrame:
    """A frame of the report: a JPEG beside the page and what is said of it."""

    data: str
    source: str
    caption: str


def write_report(
    path: Path, document: JsonDict, frames: Sequence[ShownFrame], times: JsonDict
) -> Path:
    """
    Write the page of a document of results.

    document: the content of results.json. frames: the worst ones, see worst.py. times: the content
    of times.json.
    """
    sets = set_names(document)
    titles = [
        'In short',
        *sets,
        *(['Differences'] if document['comparisons'] else []),
        *(['Skipped pictures'] if _skipped(document) else []),
        *('Time', 'What was run', 'Words'),
    ]
    parts = [_header(document), page.contents(titles), _in_short(document)]
    parts += [_set_section(document, data, frames) for data in sets]
    if document['comparisons']:
        parts.append(differences(document['comparisons']))
    if _skipped(document):
        parts.append(_skipped_section(document))
    parts += [_time_section(times), _run_section(document), _word_section()]
    return page.write_page(path, 'Evaluation', parts)


def differences(comparisons: Sequence[JsonDict]) -> page.Html:
    """Return the section on which run is better."""
    return page.section(
        'Differences', [page.table(*comparison_table(comparisons))], TEXTS['differences']
    )


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
                'robot, and the result was compared with labels drawn by people.'
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
    if 'regions' not in one:
        rows = [r for r in one['rows'] if r['group'] == 'all' and r['class_name'] == 'pooled']
        said = [f'{100 * r["observed"]:.2f} % at {100 * r["promised"]:g} %' for r in rows]
        return f'flagged {", ".join(said)} promised, of all pixels that should be left alone'
    region = list(one['regions'])[-1]
    record, found = one['regions'][region], one['objects']['all'][0]
    where = {'road': 'on the road', 'ground': 'on the predicted ground'}[region]
    wrong = sum((p['flagged'] or 0) * p['pixels'] for p in one['places'])
    share = wrong / max(1, sum(p['pixels'] for p in one['places']))
    precision = record['average_precision']
    score = '-' if precision is None else f'{100 * precision:.1f} %'
    return (
        f'average precision {score} {where}; the mask found {found["found"]} of '
        f'{found["objects"]} labelled objects and wrongly flagged {100 * share:.2f} % of the rest'
    )


def _set_section(document: JsonDict, data: str, frames: Sequence[ShownFrame]) -> page.Html:
    first = document['runs'][0]['sets'][data]
    intro = page.paragraph(
        f'{first["title"]}: {first["count"]} pictures. Licence: {first["licence"]}.', 'dim'
    )
    body = _anomaly_parts if 'regions' in first else _promise_parts
    shown = [page.figure(f.source, f.caption) for f in frames if f.data == data]
    worst = [page.element('h3', 'Worst frames'), page.paragraph(TEXTS['worst'], 'reading')]
    parts = [intro, *body(document, data)]
    return page.section(
        data, [*parts, *([*worst, page.figures(shown, wide=True)] if shown else [])]
    )


def _anomaly_parts(document: JsonDict, data: str) -> list[page.Html]:
    """Return the parts of a set of anomalies."""
    runs = {run['name']: run['sets'][data] for run in document['runs']}
    first_name, first = next(iter(runs.items()))
    region = list(first['regions'])[-1]
    records = {name: one['regions'][region] for name, one in runs.items()}
    parts = [
        page.element('h3', 'Headline numbers'),
        page.paragraph(TEXTS['headline'], 'reading'),
        page.table(*headline_table(document, data)),
        page.element('h3', f'Curves, {REGION_TITLES[region]}'),
        page.paragraph(TEXTS['curves'], 'reading'),
        page.drawing(curve_plot(_curves(records), _shares(records)), _limited(runs)),
        page.element('h3', 'Promise and scores'),
        page.paragraph(TEXTS['calibration'], 'reading'),
        page.figures([
            page.drawing(calibration_plot(_anomaly_calibration(runs)), _limited(runs)),
            page.drawing(histogram_plot(first['regions'][region]['histogram']), first_name),
        ]),
    ]  # fmt: skip
    return parts + _breakdown(first_name, first)


def _breakdown(name: str, one: JsonDict) -> list[page.Html]:
    """Return the tables by size and place of one run."""
    header = ['', 'objects', 'found', 'of their pixels flagged, %', 'in the region, %']
    places = [
        [row['name'], f'{row["pixels"]:,}', page_percent(row['flagged'])] for row in one['places']
    ]
    return [
        page.element('h3', f'By size and place: {name}'),
        page.paragraph(TEXTS['breakdown'], 'reading'),
        page.table(['objects by size', *header[1:]], found_cells(one['objects']['size'])),
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
        page.table(*promise_cells(document, data)),
    ]


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
