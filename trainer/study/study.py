# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A study: trainings of recipes with changes, on sets of anomalies, in one table.

    trainer study config/train/leaderboard.yaml [--only NAME ...] [--seeds 42] [--latency]
                  [--use NAME=FOLDER]

The YAML declares rows of {name, recipe, set, seeds, against}. Every bundle is built once, every
image scored once by the node's own pipeline, and bundles of one backbone share its outputs (in
the study's folder under backbones/, which may be deleted). A run that was stopped goes on, and a
run of a part is a part of the whole. The report shows what there is and names what is missing;
--use takes a bundle that its own recipe has trained already. FOLDER/runs.yaml lists the bundles
for `trainer evaluate --runs`. --latency times the heads (on a quiet machine).

Exit status: 0 all done, 2 a mistake, 3 done, but rows could not be built: the report names them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bench.machine import machine
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.run import RunOptions
from ood_perception.json_files import write_json
from ood_perception.pipeline import Settings

from ..augment.cutouts import PasteSettings
from ..augment.outlier_sources import load_outliers
from ..datasets import open_set
from ..datasets.pasted import write_pasted_set
from ..evaluation.options import (
    add_training_arguments,
    apply_training_arguments,
    command_parser,
    sets_root,
)
from ..evaluation.runs import Evaluation, RunResult, RunSpec
from ..evaluation.sets import ANOMALY_KINDS, CLOSED_SET, Extras
from ..recipe import Recipe, load_recipe
from ..workflow import Workflow
from .bundles import RUNS, LeaderboardBundles
from .config import LeaderboardConfig, load_leaderboard
from .report import read_costs, write_report

LOG = logging.getLogger(__name__)
REPEATS = 5
PASTED = 'pasted'
SOME_MISSING = 3


def evaluate(
    config: LeaderboardConfig, bundles: LeaderboardBundles, threads: int, progress: bool = True
) -> dict[str, RunResult]:
    """
    Score every bundle that there is on every set; return the runs by name.

    In one precision, so that a row does not depend on which is fastest on this machine.
    """
    views = {name: row.view for row in config.rows for name, _ in row.runs()}
    specs = [RunSpec(name, str(place), Settings(), views[name]) for name, place in bundles.there()]
    if not specs:
        raise ConfigError('no bundle of the study is there yet: run without --report-only')
    root = sets_root()
    sets = {_address(config, name, root): name for name in config.sets}
    evaluation = Evaluation(
        root,
        config.folder / 'evaluation',
        EngineOptions('openvino', config.precision, threads),
        RunOptions(progress=progress),
        Extras(limit=config.images, spaced=True),
        shared=config.folder / 'backbones',
    )
    results = evaluation.results(specs, [*sets])
    return {
        run.name: replace(run, sets={sets[address]: one for address, one in run.sets.items()})
        for run in results.runs
    }


def _address(config: LeaderboardConfig, name: str, root: Path) -> str:
    """Return a set as open_set knows it; ConfigError for one that compares no heads."""
    if name == PASTED:
        row = config.row(config.reference)
        if not row.recipe:
            raise ConfigError(f"'pasted' is made of a recipe's images: {row.name!r} has none")
        return _pasted(load_recipe(Path(row.recipe), row.changes(row.seeds[0])), config.folder)
    if open_set(name, root).kind not in (*ANOMALY_KINDS, CLOSED_SET):
        raise ConfigError(
            f'{name} labels neither anomalies nor the classes of a bundle: measure it by '
            f'ood_trainer evaluate --runs {config.folder / RUNS} --data {name}'
        )
    return name


def _pasted(recipe: Recipe, folder: Path) -> str:
    """
    Write (or load) the set that hyperparameters are chosen on; return its address for open_set.

    The images are those of the training split that only choose (data.selection_fraction), the
    objects the half of the recipe's outliers that no training sees; they stand on the bundle's
    ground classes. These alone, by their true labels, are scored, with what stands on them.
    """
    data, place = Workflow(recipe, folder).data, folder / PASTED
    images = data.images.subset(data.split[1])
    objects = load_outliers(recipe.outliers, 'selection', data.root)
    ground = tuple(data.class_names.index(name) for name in recipe.bundle.ground_classes)
    settings = PasteSettings(ground=ground)
    write_pasted_set(images, objects, place, settings, recipe.seed, ground_only=True)
    return f'{PASTED}={place}'


def measure_costs(
    config: LeaderboardConfig, bundles: LeaderboardBundles, latency: bool, threads: int
) -> None:
    """Record each row's parameters, and with latency the time of its head, in costs.json."""
    path = config.folder / 'costs.json'
    costs, there = read_costs(path), dict(bundles.there())
    for row in config.rows:
        places = [there[name] for name, _ in row.runs() if name in there]
        if not places:
            continue
        bundle = load_bundle(places[0])
        known = costs.get(row.name, {})
        if known.get('bundle') != bundle.sha256:
            known = {'bundle': bundle.sha256, 'parameters': head_parameters(bundle)}
        if latency:
            LOG.info('time of %s', row.name)
            images = 1 if row.view else bundle.manifest.input.images
            times = frame_times(complete(bundle), threads, images)
            known |= {**times, 'setting': _setting(threads)}
        costs[row.name] = known
    write_json(path, costs)


def _setting(threads: int) -> dict[str, Any]:
    """Return what a latency depends on beside the row."""
    facts = {'processor': machine()['processor'], 'threads': threads}
    return {**facts, 'runtime': 'OpenVINO f32'}


def head_parameters(bundle: Bundle) -> int:
    """Return the number of values in the stages behind the backbone (matrices and vectors)."""
    import onnx

    count = 0
    for stage in bundle.manifest.stages[1:]:
        graph = onnx.load(str(bundle.stage_path(stage))).graph
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        count += sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in floats)
    return count


def frame_times(bundle: Bundle, threads: int, images: int) -> dict[str, float]:
    """
    Return medians of a frame seen as so many images, OpenVINO f32: head_ms and frame_cpu_ms.

    head_ms: of the stages behind the backbone. frame_cpu_ms: CPU time of all stages and threads,
    which other processes disturb little.
    """
    size = bundle.manifest.input
    image = np.zeros((images, size.height, size.width, 3), np.uint8)
    with create_engine(bundle, EngineOptions('openvino', 'f32', threads)) as engine:
        chosen = np.ones(len(engine.compiled_classes), np.float32)
        heads, frames = [], []
        for _ in range(REPEATS + 1):
            start = time.process_time()
            stages: dict[str, Any] = engine.run(image, chosen).stage_ms
            frames.append((time.process_time() - start) * 1e3)
            heads.append(sum(ms for name, ms in stages.items() if name != 'backbone'))
    medians = [float(np.median(times[1:])) for times in (heads, frames)]
    return dict(zip(('head_ms', 'frame_cpu_ms'), medians, strict=True))


def main(arguments: Sequence[str]) -> int:
    """Run `trainer study`; return the exit status."""
    parser = command_parser(__doc__)
    parser.add_argument('study', type=Path, help='YAML file, see config/train/leaderboard.yaml')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='rows to build')
    parser.add_argument('--seeds', nargs='+', type=int, default=[], help='seeds to build')
    parser.add_argument(
        '--use',
        action='append',
        default=[],
        metavar='ROW=FOLDER',
        help="a finished bundle of a row (or of 'ROW, seed N') instead of a training",
    )
    parser.add_argument('--build-only', action='store_true', help='score nothing')
    parser.add_argument('--report-only', action='store_true', help='build nothing')
    parser.add_argument('--latency', action='store_true', help='time the heads, too')
    add_training_arguments(parser)
    options = parser.parse_args(arguments)
    apply_training_arguments(options)
    config = load_leaderboard(options.study)
    bundles = LeaderboardBundles(config, options.only, options.seeds, options.cache)
    for entry in options.use:
        bundles.take(entry)
    reasons = {} if options.report_only else bundles.build()
    if options.build_only:
        return SOME_MISSING if reasons else 0
    runs = evaluate(config, bundles, options.threads, not options.quiet)
    measure_costs(config, bundles, options.latency, options.threads)
    report = write_report(config, options.study, runs, reasons, bundles.taken())
    print(f'table: {report}')
    return SOME_MISSING if reasons else 0
