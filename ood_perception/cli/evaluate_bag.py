# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The program evaluate_bag: a recorded bag through the node's own pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bags.before_after import compare_bundles
from ood_perception.bags.compression import MAX_FILE_BYTES, MAX_MESSAGE_BYTES, MIB
from ood_perception.bags.problems import ON_ERROR, SKIP
from ood_perception.bags.reading import Limits
from ood_perception.bags.remote import recording_path
from ood_perception.bags.replay import RESULT, RRD, ReplayOptions, check_options, evaluate
from ood_perception.bags.writing import DEFAULT_OUTPUTS, OUTPUTS, STORAGES
from ood_perception.bundle.store import load_bundle
from ood_perception.errors import ConfigError, exit_status
from ood_perception.fleet.pool import add_cluster, cluster_of
from ood_perception.fleet.recordings import is_fleet
from ood_perception.fleet.run import evaluate_fleet
from ood_perception.fleet.worker import Work
from ood_perception.json_files import json_text
from ood_perception.loader import open_model
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.parameters.settings import strings
from ood_perception.parameters.table import DEFAULTS, RANGE_DEFAULTS
from ood_perception.texts import tell
from ood_perception.types import JsonDict, UInt8Array

FINE, FAILED, WITH_SKIPPED = 0, 1, 3
_GIB = 1 << 30
_FLEET_OUT = 'recordings_evaluated'
_PARAMETERS = (
    'bundle', 'weights', 'require_signature', 'engine', 'precision', 'threads', 'head',
    'false_alarm_rate',
    'hysteresis_rate', 'minimum_area', 'in_distribution', 'views', 'roi.mode', 'roi.classes',
    'max_megapixels',
)  # fmt: skip


def evaluate_bag(argv: Sequence[str] | None = None) -> int:
    """
    Replay a ROS 2 bag through the node's pipeline, losslessly; write a result bag and a report.

    Several bags, a folder of them, a pattern or a list: one report of all, and no result bags; the
    same command goes on where it was stopped. Exit status: 0 all went well, 1 nothing was written,
    3 finished and something was skipped.
    """
    arguments = _parser().parse_args(argv)
    return exit_status('error', lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=evaluate_bag.__doc__)
    add = parser.add_argument
    add(
        'bag',
        nargs='+',
        help='folder of a bag, one .mcap or .db3 file; or several, a folder of bags, a pattern, a '
        '.txt with one a line; each may be a URL (s3://...)',
    )
    add(
        '--out',
        type=Path,
        help=f'folder of the results; default: <bag>_evaluated or {_FLEET_OUT}, here',
    )
    add('--topics', nargs='+', default=[], help='image topics, or name=topic; default: all')
    add(
        '--ground-truth',
        nargs='+',
        default=[],
        help='label topic or folder (1 anomaly, 0 normal), or camera=one of them',
    )
    add('--on-error', default=SKIP, choices=ON_ERROR, help='skip and count, or fail at once')
    add('--storage', default='mcap', choices=STORAGES, help='of the result bag')
    add('--outputs', nargs='+', choices=OUTPUTS, help='of the result bag')
    add(
        '--rrd',
        action='store_true',
        help=f'also write {RRD} for the Rerun viewer (needs rerun-sdk)',
    )
    add(
        '--adapted',
        metavar='BUNDLE',
        help='compare with this bundle instead, frame by frame; of several recordings: collect '
        'the frames on which both differ',
    )
    add('--batch', type=int, default=1, help='frames per engine run')
    add('--max-message-mib', type=float, default=MAX_MESSAGE_BYTES / MIB)
    add('--max-file-gib', type=float, default=MAX_FILE_BYTES / _GIB)
    add('--json', action='store_true', help='print the report as JSON')
    _add_fleet(parser)
    add_parameters(parser, _PARAMETERS)
    return parser


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('several recordings')
    add_cluster(group)
    add = group.add_argument
    add('--mine', type=int, default=2, help='frames kept of a recording, of each kind; 0: none')


def _run(arguments: argparse.Namespace) -> int:
    used = {**DEFAULTS, **(RANGE_DEFAULTS if arguments.rrd else {})}
    values = chosen_parameters(arguments, _PARAMETERS, tell, used)
    if arguments.ray or len(arguments.bag) > 1 or is_fleet(arguments.bag[0]):
        return _run_fleet(arguments, values)
    bag = recording_path(arguments.bag[0])
    out = arguments.out or Path(f'{bag.absolute().name.split(".")[0]}_evaluated')
    options = _options(arguments, bag, out, tuple(arguments.outputs or DEFAULT_OUTPUTS))
    check_options(options)
    model = open_model(values, tell, max(1, arguments.batch))
    if arguments.adapted:
        adapted = open_model({**values, 'bundle': arguments.adapted}, tell)
        with model.engine, adapted.engine:
            compare_bundles(bag, out, model, adapted, options.topics, tell)
        return FINE
    with model.engine:
        report, seconds = evaluate(options, model, tell, _by_cv_bridge)
    print(json_text(report) if arguments.json else _summary(report, seconds, out))
    return WITH_SKIPPED if report['problems']['counts'] else FINE


def _run_fleet(arguments: argparse.Namespace, values: dict[str, Any]) -> int:
    if arguments.outputs or arguments.rrd:
        raise ConfigError(
            '--outputs, --rrd: of several recordings no result bags are written: leave them out, '
            'or give one recording'
        )
    if arguments.mine < 0:
        raise ConfigError(f'--mine {arguments.mine}: give 0 or more')
    threads = int(values.get('threads') or 0)
    cluster = cluster_of(arguments, str(values.get('engine', '')), threads)
    if cluster:
        values = {**values, 'threads': cluster.threads}
    out = arguments.out or Path(_FLEET_OUT)
    bundle = load_bundle(
        values.get('bundle', DEFAULTS['bundle']),
        require_signature=strings(values.get('require_signature', ())),
    )
    work = Work(
        values=values,
        options=_options(arguments, Path(), out, ()),
        bundle_sha256=bundle.sha256,
        second=arguments.adapted or '',
        mined=arguments.mine,
        otherwise=_by_cv_bridge,
    )
    report = evaluate_fleet(arguments.bag, work, out, cluster, tell)
    print(json_text(report) if arguments.json else _fleet_summary(report, out))
    if not report['done']:
        return FAILED
    return WITH_SKIPPED if report['failed'] or report['problems'] else FINE


def _fleet_summary(report: JsonDict, out: Path) -> str:
    lines = [
        f'{row["camera"] or "camera"}: {row["evaluated"]} of {row["messages"]} frames of '
        f'{row["recordings"]} recordings evaluated, {row["obstacles"]} obstacles on '
        f'{row["frames_with_obstacles"]} frames'
        for row in report['cameras']
    ]
    lines += _truth_lines(report)
    lines.append(f'{report["done"]} of {report["recordings"]} recordings are done')
    lines += [f'failed: {row["recording"]}: {row["reason"]}' for row in report['failed']]
    return '\n'.join([*lines, f'report: {out / "index.html"}'])


def _options(
    arguments: argparse.Namespace, bag: Path, out: Path, outputs: tuple[str, ...]
) -> ReplayOptions:
    return ReplayOptions(
        bag=bag,
        out=out,
        topics=tuple(arguments.topics),
        ground_truth=tuple(arguments.ground_truth),
        storage=arguments.storage,
        outputs=outputs,
        on_error=arguments.on_error,
        limits=Limits(int(arguments.max_message_mib * MIB), int(arguments.max_file_gib * _GIB)),
        batch=arguments.batch,
        rrd=arguments.rrd,
    )


def _summary(report: JsonDict, seconds: float, out: Path) -> str:
    lines = []
    for row in report['cameras']:
        name = row['camera'] or row['topic']
        lines.append(
            f'{name}: {row["evaluated"]} of {row["messages"]} frames evaluated, '
            f'{row["obstacles"]} obstacles on {row["frames_with_obstacles"]} frames'
        )
    lines += _truth_lines(report)
    lost = report['bag']['messages_lost']
    lines += [f'lost: {lost} recorded messages cannot be read'] if lost else []
    lines += [f'skipped: {kind}: {n}' for kind, n in report['problems']['counts'].items()]
    lines += [f'  {problem["text"]}' for problem in report['problems']['first']]
    evaluated = sum(row['evaluated'] for row in report['cameras'])
    rate = evaluated / seconds if seconds else 0.0
    lines.append(f'{evaluated} frames in {seconds:.1f} s, {rate:.1f} a second')
    places = [f'report: {out / "index.html"}', f'result bag: {out / RESULT}']
    rrd = out / RRD
    places += [f'for Rerun: rerun {rrd}'] if rrd.exists() else []
    return '\n'.join([*lines, *places])


def _truth_lines(report: JsonDict) -> list[str]:
    lines = []
    for camera, record in report['ground_truth'].items():
        figures = ', '.join(
            f'{name} {value:.4f}'
            for name, value in record.get('metrics', {}).items()
            if value is not None
        )
        lines.append(f'{camera or "camera"}: {record["frames"]} labelled frames; {figures}')
    return lines


def _by_cv_bridge(message: Any) -> UInt8Array:
    """Decode what our tables lack as the node does, where cv_bridge is installed."""
    from ood_perception.ros.decode import decode_by_cv_bridge

    return decode_by_cv_bridge(message)


if __name__ == '__main__':
    sys.exit(evaluate_bag())
