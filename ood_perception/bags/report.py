# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""report.json and index.html of an evaluated bag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ood_perception.json_files import json_text
from ood_perception.reports import html as page
from ood_perception.reports.markdown import TITLES, percent
from ood_perception.types import JsonDict

from .statistics import Shown
from .writing import output_topic

PROGRAM = 'evaluate_bag'


def write_reports(folder: Path, report: JsonDict, shown: Sequence[Shown]) -> None:
    """Write both files; shown: frames with their overlays."""
    text = json_text(report, indent=2) + '\n'
    (folder / 'report.json').write_text(text, encoding='utf-8')
    page.write_page(
        folder / 'index.html', f'{PROGRAM}: {report["bag"]["path"]}', _parts(report, shown)
    )


def _parts(report: JsonDict, shown: Sequence[Shown]) -> Iterable[str]:
    yield page.element('h1', 'A bag, evaluated')
    yield page.paragraph(_verdict(report), 'bad' if report['problems']['counts'] else 'good')
    yield page.section('The bag', [page.facts(_bag_facts(report['bag']))])
    yield page.section(
        'Cameras',
        [page.table(*_cameras(report['cameras']))],
        'Every recorded frame went through the model once, in recorded order. Scored: the share '
        'of the picture inside the region of interest. Flagged: the share of that which the mask '
        'calls obstacle; on frames without obstacles it should stay near the false alarm rate or '
        'below.',
    )
    if report['ground_truth']:
        yield page.section(
            'Against the ground truth',
            [page.table(*_metrics(report['ground_truth']))],
            'Percent, with 95 % intervals over frames. AP and AUROC: higher is better; FPR95: the '
            'share of normal pixels flagged when 95 % of the anomaly is found, lower is better. '
            'Pixels outside the region of interest do not count, but in "AP, lost counted": there '
            'the anomaly outside is never found.',
        )
    if shown:
        yield page.section(
            'The strangest frames',
            [page.figures(page.figure(one.source, one.caption) for one in shown)],
            'The frames with the strangest obstacles. Look here first: are they real? White '
            'outlines are the mask, red boxes the obstacles; the blue outline is what was scored.',
        )
    yield page.section('The result bag', [page.facts(_result_facts(report))])
    yield page.section('The model', [page.facts(_model_facts(report['model']))])
    if report['problems']['counts']:
        yield page.section('Skipped', _problems(report['problems']))


def _verdict(report: JsonDict) -> str:
    evaluated = sum(camera['evaluated'] for camera in report['cameras'])
    messages = sum(camera['messages'] for camera in report['cameras'])
    skipped = sum(report['problems']['counts'].values())
    text = f'{evaluated} of {messages} frames were evaluated'
    return (
        f'{text}; {skipped} problems were met and skipped, see the end.' if skipped else f'{text}.'
    )


def _bag_facts(bag: JsonDict) -> dict[str, str]:
    promised = bag['messages_promised']
    return {
        'Bag': bag['path'],
        'Files': f'{", ".join(bag["files"])} ({bag["storage"]})',
        'metadata.yaml': 'there' if bag['metadata'] else 'none',
        'File compression': bag['file_compression'],
        'Message compression': bag['message_compression'],
        'Messages': f'{bag["messages_indexed"]} found'
        + ('' if promised is None else f', {promised} promised by metadata.yaml')
        + (f', {bag["messages_lost"]} lost' if bag['messages_lost'] else ''),
        'Topics': ', '.join(
            f'{row["topic"]} ({row["type"]}, {row["messages"]})' for row in bag['topics']
        ),
        **({'Notes': '; '.join(bag['notes'])} if bag['notes'] else {}),
    }


def _cameras(cameras: Sequence[JsonDict]) -> tuple[list[str], list[list[str]]]:
    header = [
        'camera', 'topic', 'frames', 'evaluated', 'scored', 'flagged', 'frames with obstacles',
        'obstacles', 'obstacles a minute',
    ]  # fmt: skip
    rows = [
        [
            row['camera'] or '-',
            row['topic'],
            str(row['messages']),
            str(row['evaluated']),
            f'{100 * row["scored_share"]:.1f} %',
            f'{100 * row["flagged_share_of_scored"]:.2f} %',
            str(row['frames_with_obstacles']),
            str(row['obstacles']),
            '-' if row['obstacles_per_minute'] is None else f'{row["obstacles_per_minute"]:.1f}',
        ]
        for row in cameras
    ]
    return header, rows


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


def _result_facts(report: JsonDict) -> dict[str, str]:
    outputs = report['result']['outputs']
    topics = [output_topic(row['camera'], name) for row in report['cameras'] for name in outputs]
    return {
        'Folder': f'result/ ({report["result"]["storage"]})',
        'Topics': ', '.join(topics),
        'Time': 'headers have the stamps and frame_ids of the pictures, log times are theirs, too',
        'Open it': 'in Foxglove, or with ros2 bag play beside the recording',
    }


def _model_facts(model: JsonDict) -> dict[str, str]:
    return {
        'Bundle': f'{model["bundle"]["name"]} (sha256 {model["bundle"]["sha256"][:16]})',
        'Engine': ', '.join(f'{key} {value}' for key, value in model['engine'].items()),
        'Normal classes': ', '.join(model['in_distribution']),
        **{name: str(value) for name, value in model['settings'].items() if value not in ('', [])},
    }


def _problems(problems: JsonDict) -> list[str]:
    rows = [[kind, str(count)] for kind, count in problems['counts'].items()]
    texts = [f'{one["kind"]}: {one["text"]}' for one in problems['first']]
    return [page.table(['what', 'how often'], rows), page.bullets(texts)]
