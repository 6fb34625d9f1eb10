# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""report.json and index.html of an evaluated bag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ood_perception.json_files import json_text
from ood_perception.reports.html import write_page
from ood_perception.reports.tables import TITLES, percent
from ood_perception.types import JsonDict

from .statistics import Shown
from .writing import output_topic

PROGRAM = 'evaluate_bag'


def write_reports(folder: Path, report: JsonDict, shown: Sequence[Shown]) -> None:
    """Write both files; shown: frames with their overlays."""
    text = json_text(report, indent=2) + '\n'
    (folder / 'report.json').write_text(text, encoding='utf-8')
    settings = report['model']['settings']
    write_page(
        folder / 'index.html',
        'bag.html.j2',
        program=PROGRAM,
        report=report,
        topics=[
            f'{row["topic"]} ({row["type"]}, {row["messages"]})' for row in report['bag']['topics']
        ],
        truth=_metrics(report['ground_truth']) if report['ground_truth'] else None,
        shown=shown,
        result_topics=[
            output_topic(row['camera'], name)
            for row in report['cameras']
            for name in report['result']['outputs']
        ],
        settings={name: str(value) for name, value in settings.items() if value not in ('', [])},
    )


def _metrics(truth: JsonDict) -> tuple[list[str], list[list[str]]]:
    names = [name for name in TITLES if any(name in r.get('metrics', {}) for r in truth.values())]
    rows = [
        [
            camera or '-',
            str(record['frames']),
            *(
                percent(record['metrics'][name], record['intervals'][name])
                if record['frames']
                else '-'
                for name in names
            ),
        ]
        for camera, record in truth.items()
    ]
    return ['camera', 'labelled frames', *(TITLES[name] for name in names)], rows
