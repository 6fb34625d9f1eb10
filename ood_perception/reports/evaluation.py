# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation's report, readable without knowing the code, and the frames to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.evaluation.maritime import sea_labels
from ood_perception.evaluation.measure import INSPECTION, Measured
from ood_perception.evaluation.record import Kept, RecordSet, unpack_detection
from ood_perception.evaluation.results import GROUPS, write_text
from ood_perception.evaluation.second_pass import ReadImage
from ood_perception.metrics.lars import OBSTACLE, coloured
from ood_perception.postprocess.overlay import OverlayOptions, draw_overlay, outline
from ood_perception.types import BoolArray, Frame, JsonDict, UInt8Array

from .html import render, save_jpeg, write_page
from .plots import MOST_LINES, Rate, calibration_plot, curve_plot, histogram_plot
from .tables import (
    REGION_TITLES,
    comparison_tables,
    group_table,
    headline_table,
    product_table,
    rate_cells,
    set_names,
)

LABEL_COLOR, SHORE_COLOR = (64, 128, 255), (255, 255, 255)
SMALLEST_WIDTH = 640


@dataclass(frozen=True)
class ShownFrame:
    """A frame of the report: its set, a JPEG beside the page, and its row of the summary."""

    data: str
    source: str
    row: JsonDict


def worst_images(images: Sequence[JsonDict], count: int) -> list[JsonDict]:
    """
    Choose images of a summary: by the share of the anomaly that the mask left out, and by the
    share of normal pixels that it flagged; alternately, each at most once, the worst first.
    """

    def ordered(name: str) -> list[JsonDict]:
        rows = [row for row in images if row.get(name)]
        return sorted(rows, key=lambda row: (-row[name], row['name']))

    queues = [ordered('anomaly_missed'), ordered('normal_flagged')]
    chosen: list[JsonDict] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def draw_worst(
    folder: Path,
    data: str,
    images: Sequence[JsonDict],
    records: RecordSet,
    read: ReadImage,
    measured: Measured,
    count: int,
) -> list[ShownFrame]:
    """
    Write the worst frames of a set as JPEG under `folder`/frames.

    images: the rows of its summary. read: image name -> uint8 (H, W, 3) RGB and labels uint8
    (H, W).
    """
    kept = {one.name: one for one in records.kept}
    frames = []
    for number, row in enumerate(worst_images(images, count), 1):
        image = _drawn(records, kept[row['name']], read, measured)
        safe = ''.join(c if c.isalnum() else '_' for c in data)
        source = save_jpeg(folder, f'frames/{safe}_{number:02d}.jpg', image, width=960)
        frames.append(ShownFrame(data, source, row))
    return frames


def _drawn(records: RecordSet, kept: Kept, read: ReadImage, measured: Measured) -> UInt8Array:
    """Return a kept detection over its image, with what people labelled outlined."""
    image, labels = read(kept.name)
    arrays: dict[str, Any] = records.load(kept)
    detection = unpack_detection(arrays, Frame(image, frame_id=kept.name))
    if measured.sea is not None:
        areas = coloured(sea_labels(detection, measured.sea))
        frame = np.asarray(cv2.addWeighted(image, 0.55, areas, 0.45, 0), np.uint8)
        return _outlined(frame, labels == OBSTACLE, SHORE_COLOR)
    if measured.kind == INSPECTION:
        frame = draw_overlay(detection, OverlayOptions(boxes=False, region=False, legend=False))
        return _outlined(*_enlarged(frame, labels == 1), LABEL_COLOR)
    frame = draw_overlay(detection)
    return _outlined(frame, labels == 1, LABEL_COLOR) if measured.regions else frame


def _enlarged(image: UInt8Array, area: BoolArray) -> tuple[UInt8Array, BoolArray]:
    """Enlarge small images by a whole factor, so that outlines do not cover what they mark."""
    factor = -(-SMALLEST_WIDTH // image.shape[1])
    size = (image.shape[1] * factor, image.shape[0] * factor)
    large = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    marked = cv2.resize(area.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, np.uint8), marked > 0


def _outlined(image: UInt8Array, area: BoolArray, color: tuple[int, int, int]) -> UInt8Array:
    outline(image, area, color, max(2, image.shape[0] // 270))
    return image


def write_report(
    path: Path, document: JsonDict, frames: Sequence[ShownFrame], times: JsonDict
) -> Path:
    """Write the page of results.json's document, worst frames and times.json's content."""
    columns = ('read', 'preprocess', 'inference', 'postprocess', 'measure')
    return write_page(
        path,
        'evaluation.html.j2',
        document=document,
        products=product_table(document),
        sets=[_section_values(document, data, frames) for data in set_names(document)],
        tables=comparison_tables(document['comparisons']),
        skipped=[
            [run['name'], data, row['name'], row['reason']]
            for run in document['runs']
            for data, one in run['sets'].items()
            for row in one['skipped']
        ],
        times=[
            [run, data, *(f'{row[name]:.1f}' for name in columns)]
            for run, sets in times.items()
            for data, row in sets.items()
        ],
    )


def markdown(document: JsonDict) -> str:
    """Return every set's headline tables as Markdown."""
    return render(
        'evaluation.md.j2',
        sets=[_set_values(document, data) for data in set_names(document)],
        products=product_table(document),
        tables=comparison_tables(document['comparisons']),
    )


def write_comparison(folder: Path, folders: tuple[Path, Path], rows: Sequence[JsonDict]) -> Path:
    """Write the differences of two folders, comparison.md (printed) and index.html (returned)."""
    tables, (first, second) = comparison_tables(rows), folders
    text = render('comparison.md.j2', tables=tables)
    write_text(folder / 'comparison.md', text)
    print(text)
    page = folder / 'index.html'
    return write_page(page, 'comparison.html.j2', first=first, second=second, tables=tables)


def _set_values(document: JsonDict, data: str) -> JsonDict:
    """Return the headline tables of one set, and what its first run says of it."""
    first = document['runs'][0]['sets'][data]
    skipped = {row['name'] for run in document['runs'] for row in run['sets'][data]['skipped']}
    held = {name for run in document['runs'] for name in run['sets'][data]['groups']}
    return {
        **first,
        'name': data,
        'run': document['runs'][0]['name'],
        'groups': [_group_values(document, data, name) for name in GROUPS if name in held],
        'headline': headline_table(document, data) if 'regions' in first else None,
        'rates': rate_cells(document, data) if 'rows' in first else None,
        'left_out': sorted(skipped),
    }


def _section_values(document: JsonDict, data: str, frames: Sequence[ShownFrame]) -> JsonDict:
    """Return what the page's section of one set shows beside its tables: frames and drawings."""
    runs = {run['name']: run['sets'][data] for run in document['runs']}
    values = _set_values(document, data)
    values['frames'] = [frame for frame in frames if frame.data == data]
    if values['headline']:
        values['pixels'] = _pixel_values(runs)
    if values['rates']:
        values['rate_plot'] = _rate_plot(runs)
    return values


def _group_values(document: JsonDict, data: str, name: str) -> JsonDict:
    """Return one group's table, and the facts of the first run that has it."""
    run, group = next(
        (run['name'], run['sets'][data]['groups'][name])
        for run in document['runs']
        if name in run['sets'][data]['groups']
    )
    table = group_table(document, data, name)
    return {**group, 'name': name, 'title': GROUPS[name].title, 'run': run, 'table': table}


def _pixel_values(runs: Mapping[str, JsonDict]) -> JsonDict:
    """Return the drawings of a set of anomalies, in its strictest region."""
    first = next(iter(runs.values()))
    region = list(first['regions'])[-1]
    records = {name: one['regions'][region] for name, one in runs.items()}
    shares = {
        name: record['positives'] / max(1, record['positives'] + record['negatives'])
        for name, record in records.items()
    }
    rates: dict[str, list[Rate]] = {
        name: [(r['target'], r['normal'], r['normal_interval']) for r in one['calibration']]
        for name, one in runs.items()
    }
    limited = len(runs) > MOST_LINES
    return {
        'ground': 'ground' in first['regions'],
        'region': REGION_TITLES[region],
        'curves': curve_plot({name: one['curve'] for name, one in records.items()}, shares),
        'calibration': calibration_plot(rates),
        'histogram': histogram_plot(first['regions'][region]['histogram']),
        'limited': f'the first {MOST_LINES} of {len(runs)} runs' if limited else '',
    }


def _rate_plot(runs: Mapping[str, JsonDict]) -> str:
    """Return the drawing of a set with known classes."""
    lines: dict[str, list[Rate]] = {}
    for name, one in runs.items():
        for row in one['curve']:
            line = row['class_name'] if len(runs) == 1 else f'{name}, {row["class_name"]}'
            rate = (row['target'], row['observed'], row['interval'])
            lines.setdefault(line, []).append(rate)
    return calibration_plot(lines)
