# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a ledger to one report: sums over recordings, labelled pixels merged exactly, frames."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from ood_perception.bags.statistics import TruthCounts, merged_record
from ood_perception.bags.writing import truth_table
from ood_perception.evaluation.results import write_csv
from ood_perception.files import make_folder
from ood_perception.json_files import read_json, write_json
from ood_perception.reports.html import write_page
from ood_perception.types import JsonDict

from .ledger import DONE, Entry, Item, Ledger
from .mining import COUNTS, MINED, REASONS, TO_LABEL, Mined, read_truth

PROGRAM = 'evaluate_bag, many recordings'
MOST_MINED = 24
_SUMS = ('messages', 'evaluated', 'skipped', 'labelled', 'frames_with_obstacles', 'obstacles')
_MEANS = ('scored_share', 'flagged_share_of_scored')  # over evaluated frames


def fleet_report(ledger: Ledger, recordings: Sequence[Item]) -> JsonDict:
    """
    Return the report of these recordings as JSON values; each is counted once, or named.

    rows: one a recording. cameras: by name, over all recordings that have one of it. ground_truth:
    by camera, as of one long recording, with intervals over recordings.
    """
    rows, reports, truth = [], [], dict[str, list[TruthCounts]]()
    for recording in recordings:
        entry = ledger.entry(recording)
        report: JsonDict = {}
        if entry is not None and entry.status == DONE:
            report = read_json(ledger.results(recording) / 'report.json')
            reports.append(report)
            for camera, counts in read_truth(ledger.results(recording) / COUNTS).items():
                truth.setdefault(camera, []).append(counts)
        rows.append(_row(recording, entry, report))
    return {
        'program': PROGRAM,
        'recordings': len(rows),
        'done': len(reports),
        'failed': [row for row in rows if row['status'] != DONE],
        'model': reports[0]['model'] if reports else None,
        'cameras': _cameras(reports),
        'ground_truth': {camera: merged_record(parts) for camera, parts in truth.items()},
        'problems': sum(row['problems'] for row in rows),
        'rows': rows,
    }


def write_fleet(folder: Path, report: JsonDict, mined: Sequence[tuple[Item, Mined]]) -> None:
    """Write report.json, recordings.csv and index.html over what an earlier run left."""
    write_json(folder / 'report.json', report)
    names = list(report['rows'][0])
    write_csv(
        folder / 'recordings.csv',
        names,
        [[row[name] for name in names] for row in report['rows']],
    )
    write_page(
        folder / 'index.html',
        'fleet.html.j2',
        report=report,
        truth=truth_table(report['ground_truth']) if report['ground_truth'] else None,
        mined=[
            [REASONS[one.reason], recording.name, one.camera or '-', str(one.index),
             f'{one.rank:.3g}', one.text]
            for recording, one in mined
        ],
    )  # fmt: skip


def collect_mined(ledger: Ledger, recordings: Sequence[Item]) -> list[tuple[Item, Mined]]:
    """Put the frames with the highest ranks of each reason into to_label/, with a list."""
    found: list[tuple[Item, Mined]] = []
    for recording in recordings:
        path = ledger.results(recording) / MINED
        if ledger.is_done(recording) and path.is_file():
            found += [(recording, Mined(**values)) for values in read_json(path)]
    found.sort(key=lambda pair: -pair[1].rank)
    best = [
        pair
        for reason in REASONS
        for pair in [pair for pair in found if pair[1].reason == reason][:MOST_MINED]
    ]

    def fill(folder: Path) -> None:
        rows = []
        for recording, one in best:
            name = f'{recording.name}_{one.file}'
            shutil.copyfile(ledger.results(recording) / TO_LABEL / one.file, folder / name)
            rows.append((name, recording.place, *astuple(one)))
        header = ('file', 'recording', *(field.name for field in fields(Mined)))
        write_csv(folder / 'frames.csv', header, rows)

    make_folder(ledger.folder / TO_LABEL, fill)
    return best


def _row(recording: Item, entry: Entry | None, report: JsonDict) -> JsonDict:
    cameras = report.get('cameras', [])
    return {
        'recording': recording.place,
        'status': entry.status if entry else 'not evaluated',
        'reason': entry.reason if entry else '',
        'attempts': entry.attempts if entry else 0,
        'seconds': entry.seconds if entry else 0.0,
        'evaluated': sum(row['evaluated'] for row in cameras),
        'obstacles': sum(row['obstacles'] for row in cameras),
        'flagged_share': _mean(cameras, 'flagged_share_of_scored'),
        'problems': sum(report['problems']['counts'].values()) if report else 0,
        'results': recording.name if report else '',
    }


def _cameras(reports: Sequence[JsonDict]) -> list[JsonDict]:
    """Return the sums of CameraStatistics by camera, and the means over frames."""
    by_name: dict[str, list[JsonDict]] = {}
    for report in reports:
        for row in report['cameras']:
            by_name.setdefault(row['camera'], []).append(row)
    return [
        {
            'camera': camera,
            'recordings': len(rows),
            **{name: sum(row[name] for row in rows) for name in _SUMS},
            **{name: _mean(rows, name) for name in _MEANS},
            'obstacles_per_minute': _per_minute(rows),
        }
        for camera, rows in sorted(by_name.items())
    ]


def _mean(rows: Sequence[JsonDict], name: str) -> float:
    frames = sum(row['evaluated'] for row in rows)
    return float(sum(row[name] * row['evaluated'] for row in rows) / max(frames, 1))


def _per_minute(rows: Sequence[JsonDict]) -> float | None:
    def seconds(row: Any) -> float:
        return float((row['last_stamp_ns'] or 0) - (row['first_stamp_ns'] or 0)) / 1e9

    total = sum(seconds(row) for row in rows)
    return 60 * sum(row['obstacles'] for row in rows) / total if total > 0 else None
