# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
`make demo`: images through DDS and the real node, a process, to a page and a verdict.

Exit status 0 when the object was found and the target rate held, 1 with the reason otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.demo.report import FrameResult, Run, try_engine, write_page
from ood_perception.demo.sources import Source, open_source
from ood_perception.demo.verdict import judge
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError, DataError, exit_status, required
from ood_perception.files import check_writable
from ood_perception.reports.html import environment
from ood_perception.requirements import install_command
from ood_perception.ros.tools.processes import detail, graph_environment, say
from ood_perception.settings import Settings


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit code. OodPerceptionError says what cannot be done."""
    begin = time.monotonic()
    os.environ.update(graph_environment())
    remedy = f'{install_command("ros")}, or source /opt/ros/<distribution>/setup.bash'
    session = required('ood_perception.ros.tools.demo_session', f'the demo needs ROS 2: {remedy}')
    environment()  # without jinja2 there is no page: say so before the work
    out = _made_folder(options.out)
    source = open_source(options.input, options.frames)
    say(1, f'images: {source.description}')
    images = list(source.images())
    if not images:
        raise DataError(f'{source.description}: no image in there')
    say(2, f'bundle {options.bundle}: completing the backbone weights where they are missing')
    bundle = complete(load_bundle(options.bundle), progress=detail)
    say(3, 'building the engine and comparing it with the golden vectors')
    engine = EngineOptions(runtime=options.engine, precision=options.precision)
    speed = try_engine(bundle, engine)
    detail(f'built in {speed.built:.1f} s, {1000 * speed.seconds:.0f} ms a frame')
    frames, facts = session.through_the_node(options, bundle.manifest.input, speed, images, out)
    return _finish(out, source, bundle, frames, facts, begin)


def _made_folder(folder: Path) -> Path:
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob('*_*.jpg'), folder / 'index.html'):
        old.unlink(missing_ok=True)
    return folder.resolve()


def _finish(
    out: Path,
    source: Source,
    bundle: Bundle,
    frames: list[FrameResult],
    figures: dict[str, Any],
    begin: float,
) -> int:
    """Write the page, print the verdict; return the exit code."""
    target = figures.pop('target')
    verdict = judge([f.check for f in frames if f.check], target)
    page = write_page(
        out,
        frames,
        Run(
            source=source.description,
            note=source.note,
            verdict=verdict,
            licences=bundle.manifest.licences,
            **figures,
        ),
    )
    counters = figures['counters']
    say(6, f'{len(frames)} of {figures["sent"]} frames came back, '
            f'{counters.get("dropped", 0)} dropped for a newer one')  # fmt: skip
    if verdict.checked:
        print(
            f'      object found {verdict.found} of {verdict.counted} times; '
            f'{verdict.share:.2%} of the rest of the road flagged, target {target:.2%}'
        )
    print(f'      overlays: {out}/*_overlay.jpg\n      page:     {page}')
    print(f'      took {time.monotonic() - begin:.0f} s')
    if verdict.passed:
        print('demo passed' if verdict.checked else 'demo ran (nothing to check these against)')
        return 0
    print('demo FAILED: ' + '; '.join(verdict.reasons), file=sys.stderr)
    return 1


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--input', default='', help='folder, video, ROS 2 bag or camera device; '
        'empty: a real drive with objects composed in')  # fmt: skip
    add('--out', type=Path, default=Path('out/demo'), help='folder for the page')
    add('--bundle', default=str(default_bundle_path()), help='bundle folder or .zip')
    add('--engine', default='auto', help='auto, openvino, onnxruntime, faiss')
    add('--precision', default='auto', help='auto, f32, bf16, int8')
    rate = Settings.false_alarm_rate
    add('--false-alarm-rate', type=float, default=rate, help='the target rate')
    add('--frames', type=int, default=24, help='at most this many images')
    add('--rate', type=float, default=0.0, help='images per second, 0: what the engine keeps')
    add('--timeout', type=float, default=150.0, help='seconds for the node to start, and to run')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. A user's mistake is one plain message."""
    options = arguments().parse_args(argv)
    return exit_status('demo FAILED', lambda: _checked(options))


def _checked(options: argparse.Namespace) -> int:
    if options.frames < 1 or options.rate < 0 or options.timeout <= 0:
        raise ConfigError('--frames needs 1 or more, --rate 0 or more, --timeout above 0')
    return run(options)


if __name__ == '__main__':
    sys.exit(main())
