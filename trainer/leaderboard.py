# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
All heads and baselines on sets of anomalies, in one table.

    trainer leaderboard config/train/leaderboard.yaml [--only NAME ...] [--seeds 42] [--latency]

Every bundle is built once, every picture scored once by the node's own pipeline: a run that was
stopped goes on, and a run of a part is a part of the whole. The report shows what there is and
names what is missing. --latency times the heads (on a quiet machine). Nothing is chosen on these
sets.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.run import RunOptions
from ood_perception.pipeline import Settings

from .artefacts import write_json
from .engine_choice import EngineChoice
from .evaluation_runs import RunResult, RunSpec, evaluate_runs
from .leaderboard_report import read_costs, write_report
from .leaderboard_rows import LeaderboardConfig, LeaderboardRow, load_leaderboard
from .table_bundles import BundleTable, build_bundles

LOG = logging.getLogger(__name__)
REPEATS = 5


class Leaderboard:
    """A leaderboard at work; seeds: only these of each row, () = all."""

    def __init__(
        self,
        config: LeaderboardConfig,
        only: Sequence[str] = (),
        seeds: Sequence[int] = (),
        cache: Path | None = None,
    ) -> None:
        wrong = [name for name in only if name not in [row.name for row in config.rows]]
        if wrong:
            raise ConfigError(f'--only {wrong}: rows are {[row.name for row in config.rows]}')
        self.config, self.cache = config, cache
        self.only, self.seeds = tuple(only), tuple(seeds)

    def asked(self, row: LeaderboardRow, seed: int) -> bool:
        """Return whether a training is to be made."""
        return (not self.only or row.name in self.only) and (
            not self.seeds or seed in self.seeds or row.recipe is None
        )

    def place(self, row: LeaderboardRow, seed: int) -> Path:
        """Return where a bundle is."""
        if row.recipe is None:
            return default_bundle_path()
        return self.config.folder / 'bundles' / row.bundle_row(seed).folder / 'bundle'

    def build(self, progress: bool = True) -> None:
        """Build the bundles that are asked for."""
        for row in self.config.rows:
            seeds = [seed for _, seed in row.runs() if self.asked(row, seed)]
            if row.recipe is not None and seeds:
                rows = tuple(row.bundle_row(seed) for seed in seeds)
                table = BundleTable(row.recipe, self.config.folder / 'bundles', rows)
                build_bundles(table, (), progress, self.cache)

    def evaluate(self, threads: int, progress: bool = True) -> dict[str, RunResult]:
        """Score every bundle that there is on every set; return the runs by name."""
        specs = [
            RunSpec(name, str(self.place(row, seed)), Settings())
            for row in self.config.rows
            for name, seed in row.runs()
            if (self.place(row, seed) / 'manifest.json').is_file()
        ]
        if not specs:
            raise ConfigError('no bundle of the table is there yet: run without --report-only')
        root = Path(os.environ.get('OOD_DATA', '.'))
        results = evaluate_runs(
            specs, self.config.sets, root, self.config.folder / 'evaluation',
            EngineChoice('openvino', 'auto', threads), RunOptions(1, 'fail', progress),
        )  # fmt: skip
        return {run.name: run for run in results.runs}

    def measure_costs(self, latency: bool, threads: int) -> None:
        """Record each row's parameters, and with latency the time of its head, in costs.json."""
        path = self.config.folder / 'costs.json'
        costs = read_costs(path)
        for row in self.config.rows:
            _, seed = row.runs()[0]
            place = self.place(row, seed)
            if not (place / 'manifest.json').is_file():
                continue
            bundle = load_bundle(place)
            known = costs.get(row.name, {})
            if known.get('bundle') != bundle.sha256:
                known = {'bundle': bundle.sha256, 'parameters': head_parameters(bundle)}
            if latency:
                LOG.info('time of %s', row.name)
                known['head_ms'] = head_ms(complete(bundle), threads)
            costs[row.name] = known
        write_json(path, costs)


def head_parameters(bundle: Bundle) -> int:
    """Return the number of values in the stages behind the backbone (matrices and vectors)."""
    import onnx

    count = 0
    for stage in bundle.manifest.stages[1:]:
        graph = onnx.load(str(bundle.stage_path(stage))).graph
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        count += sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in floats)
    return count


def head_ms(bundle: Bundle, threads: int) -> float:
    """Return the median milliseconds a frame of the stages behind the backbone, OpenVINO f32."""
    size = bundle.manifest.input
    image = np.zeros((1, size.height, size.width, 3), np.uint8)
    with create_engine(bundle, EngineOptions('openvino', 'f32', threads)) as engine:
        chosen = np.ones(len(engine.compiled_classes), np.float32)
        times = []
        for _ in range(REPEATS + 1):
            stages: dict[str, Any] = engine.run(image, chosen).stage_ms
            times.append(sum(ms for name, ms in stages.items() if name != 'backbone'))
    return float(np.median(times[1:]))


def main(arguments: Sequence[str]) -> None:
    """Run `trainer leaderboard`."""
    parser = argparse.ArgumentParser(
        'trainer leaderboard',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('table', type=Path, help='YAML file, see config/train/leaderboard.yaml')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='rows to build')
    parser.add_argument('--seeds', nargs='+', type=int, default=[], help='seeds to build')
    parser.add_argument('--report-only', action='store_true', help='build nothing')
    parser.add_argument('--latency', action='store_true', help='time the heads, too')
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')
    options = parser.parse_args(arguments)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    config = load_leaderboard(options.table)
    board = Leaderboard(config, options.only, options.seeds, options.cache)
    if not options.report_only:
        board.build(not options.quiet)
    runs = board.evaluate(options.threads, not options.quiet)
    board.measure_costs(options.latency, options.threads)
    print(f'table: {write_report(config, runs)}')
