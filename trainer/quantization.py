# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Give a bundle its int8 precision: ranges from clean frames, layers kept by their measured effect.

    python -m trainer quantize BUNDLE --root FOLDER      (FOLDER: camvid/ and outlier_objects/)

Ranges come from CamVid's training frames; costs from its validation frames with pasted objects,
on which nothing else is reported. One group of products at a time is left in bf16: first each
kind, then each block of the kind that costs most. What bought AP back stays in bf16, best first,
until the loss is small enough. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.cache import make_folder
from ood_perception.bundle.completion import complete
from ood_perception.bundle.manifest import MANIFEST_NAME, PrecisionSpec
from ood_perception.bundle.store import (
    Bundle,
    default_bundle_path,
    file_spec,
    load_bundle,
    write_manifest,
)
from ood_perception.bundle.typed_graph import read_model
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.choose import LARGEST_LOSS
from ood_perception.engines.quantize import linear_nodes
from ood_perception.engines.quantize_facts import (
    QUANTIZATION_NAME,
    Quantization,
    write_quantization,
)
from ood_perception.errors import BundleError
from ood_perception.geometry import geometry_for, to_network

from .data import PictureList
from .datasets import load_pictures
from .datasets.pasted import write_pasted_set
from .outliers import PasteSettings, load_cutouts
from .quantization_cost import Cost, CostBench, groups_of
from .quantization_ranges import measured_quantization
from .results import write_json

LOG = logging.getLogger(__name__)
GROUND = ('Road', 'Pavement')
TARGET_LOSS = LARGEST_LOSS / 2  # points of AP: half of what `precision: auto` allows
MOST_KEPT = 4  # products that may stay in bf16 at the end: each costs speed


@dataclass
class Search:
    """What was tried: name -> cost; the facts that were chosen."""

    trials: dict[str, Cost] = field(default_factory=dict)
    chosen: Quantization | None = None


def search(bench: CostBench, facts: Quantization, names: Sequence[str]) -> Search:
    """
    Choose which products stay in bf16 by their effect on AP.

    names: of all products with weights, as in the graph.
    """
    result = Search()

    def trial(name: str, kept: Sequence[str]) -> Cost:
        candidate = dataclasses.replace(facts, kept=tuple(kept))
        result.trials[name] = cost = bench.cost(bench.outputs('int8', candidate))
        LOG.info(
            '%-28s AP %6.2f, loss %5.2f [%5.2f, %5.2f], mean |d| %.4f',
            *(name, cost.average_precision, cost.loss, *cost.interval, cost.difference),
        )
        return cost

    trial('all int8', ())
    kinds = groups_of(names)
    cost_of = {kind: trial(f'without {kind}', nodes) for kind, nodes in kinds.items()}
    worst = min(cost_of, key=lambda kind: (cost_of[kind].loss, cost_of[kind].difference))
    single = {node: trial(f'without {node}', [node]) for node in kinds[worst]}
    order = sorted(single, key=lambda node: (single[node].loss, single[node].difference))
    kept: list[str] = []
    best = result.trials['all int8']
    for node in order[:MOST_KEPT]:
        if best.loss <= TARGET_LOSS and best.interval[1] < LARGEST_LOSS:
            break
        kept.append(node)
        best = trial(f'kept {len(kept)}', kept)
    result.chosen = dataclasses.replace(facts, kept=tuple(kept))
    return result


def validation_pictures(root: Path, folder: Path, count: int) -> PictureList:
    """Return CamVid's validation frames, evenly spaced, with objects pasted on the ground."""
    pictures = load_pictures('camvid', root / 'camvid', 'val')
    places = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int)
    ids = tuple(pictures.classes.names.index(name) for name in GROUND)
    cutouts = load_cutouts(root / 'outlier_objects', 'selection')
    chosen = pictures.subset(dict.fromkeys(places.tolist()))
    return write_pasted_set(chosen, cutouts, folder / f'pasted-{count}', PasteSettings(ground=ids))


def calibration_frames(bundle: Bundle, root: Path, count: int) -> list[Any]:
    """Return uint8 (h, w, 3) clean training frames at network size, evenly spaced."""
    pictures = load_pictures('camvid', root / 'camvid', 'train')
    spec = bundle.manifest.input
    frames = []
    for index in np.linspace(0, len(pictures) - 1, count).round().astype(int):
        image, _ = pictures.read(int(index))
        size = (image.shape[0], image.shape[1])
        geometry = geometry_for(size, (spec.height, spec.width), spec.policy, spec.anchor)
        frames.append(to_network(image, geometry))
    return frames


def precision_spec(cost: Cost, bench: CostBench, file: str, what: dict[str, Any]) -> PrecisionSpec:
    """Return the manifest's entry: bounds at three times what was measured, never very tight."""
    return PrecisionSpec(
        average_precision_loss=round(cost.loss, 4),
        interval=(round(cost.interval[0], 4), round(cost.interval[1], 4)),
        surprisal_tolerance=round(max(0.25, 3 * cost.difference_999), 3),
        label_agreement=round(min(0.99, 1 - 3 * (1 - cost.labels)), 4),
        file=file,
        measured={
            **what,
            'pictures': len(bench.pictures),
            'data': 'CamVid val with pasted objects, true road and pavement',
            'runtime': 'openvino',
            'float32_average_precision': round(bench.float_precision, 4),
            'relative_time_of_backbone': round(cost.relative_time, 3),
        },
    )


def write_precisions(
    bundle: Bundle, path: Path, facts: Quantization, precisions: dict[str, PrecisionSpec]
) -> None:
    """Write the bundle again with its facts, manifest entry and card section; whole or not."""

    def fill(folder: Path) -> None:
        for name in (*bundle.manifest.files, MANIFEST_NAME):
            if (bundle.root / name).is_file():
                shutil.copyfile(bundle.root / name, folder / name)
        write_quantization(folder / QUANTIZATION_NAME, facts)
        card = folder / 'MODEL_CARD.md'
        if card.is_file():
            text = card.read_text(encoding='utf-8').split(CARD_TITLE)[0].rstrip() + '\n'
            card.write_text(text + CARD_TITLE + card_section(precisions, facts), encoding='utf-8')
        (folder / MANIFEST_NAME).unlink()
        files = {file.name: file_spec(file) for file in sorted(folder.iterdir())}
        manifest = dataclasses.replace(bundle.manifest, precisions=precisions, files=files)
        write_manifest(folder, manifest)

    make_folder(path, fill)


CARD_TITLE = '\n## Precisions\n'


def card_section(precisions: dict[str, PrecisionSpec], facts: Quantization) -> str:
    """Return the card's section on reduced precisions."""
    lines = [
        '',
        '| backbone in | AP lost, points | 95 % interval | backbone time / float32 |',
        '| --- | --- | --- | --- |',
    ]
    for name, spec in precisions.items():
        low, high = spec.interval
        lines.append(
            f'| {name} | {spec.average_precision_loss:.2f} | {low:.2f} to {high:.2f} | '
            f'{spec.measured["relative_time_of_backbone"]:.2f} |'
        )
    data = next(iter(precisions.values())).measured
    kept = ', '.join(facts.kept) or 'none'
    return '\n'.join(
        [
            *lines,
            '',
            f'Measured on {data["pictures"]} pictures ({data["data"]}; AP of float32 '
            f'{data["float32_average_precision"]:.2f}), with OpenVINO. `precision: auto` takes '
            f'the fastest that loses less than {LARGEST_LOSS:g} points and keeps the golden '
            f'vectors. Products that stay in bf16 under int8: {kept}.',
            '',
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Run `trainer quantize`."""
    options = _options(arguments)
    source = Path(options.bundle or default_bundle_path())
    bundle = complete(load_bundle(source), options.weights or None)
    if source.is_file():
        raise BundleError(f'{source} is packed: give its folder')
    folder = options.out or Path('out') / 'quantize' / bundle.manifest.name
    pictures = validation_pictures(options.root, folder, options.pictures)
    bench = CostBench(bundle, pictures, folder / 'outputs', options.threads)
    stage = next(one for one in bundle.manifest.stages if one.reduced_precision)
    backbone = bundle.stage_path(stage)
    LOG.info('ranges of the activations on %d frames', options.frames)
    frames = calibration_frames(bundle, options.root, options.frames)
    facts = measured_quantization(backbone, frames)
    names = [node.name for node in linear_nodes(read_model(backbone))]
    precisions = {}
    if 'bf16' not in bench_lacks():
        precisions['bf16'] = precision_spec(bench.cost(bench.outputs('bf16')), bench, '', {})
    found = search(bench, facts, names)
    assert found.chosen is not None
    cost = bench.cost(bench.outputs('int8', found.chosen))
    what = {'kept_in_bf16': list(found.chosen.kept), 'calibration_frames': options.frames}
    precisions['int8'] = precision_spec(cost, bench, QUANTIZATION_NAME, what)
    trials = {name: asdict(value) for name, value in found.trials.items()}
    write_json(folder / 'search.json', {'trials': trials, 'kept': found.chosen.kept})
    write_precisions(bundle, options.to or source, found.chosen, precisions)
    _report(options.to or source, options)


def bench_lacks() -> dict[str, str]:
    """Return what this machine cannot measure at speed."""
    from ood_perception.engines.openvino import OpenVinoEngine

    return OpenVinoEngine.slow_precisions()


def _report(path: Path, options: argparse.Namespace) -> None:
    """Check the written bundle and say what auto takes."""
    bundle = complete(load_bundle(path), options.weights or None)
    engine, report = create_checked_engine(bundle, EngineOptions(threads=options.threads))
    with engine:
        print(f'{path}: {engine.choice}')
        print(f'golden: |d surprisal| {report.surprisal_difference:.3f}')


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser('trainer quantize', description=__doc__)
    parser.add_argument('bundle', nargs='?', default='', help='a folder; default: the shipped one')
    parser.add_argument('--to', type=Path, help='write the bundle here instead of in its place')
    parser.add_argument('--root', type=Path, default=Path(os.environ.get('OOD_DATA', '.')))
    parser.add_argument('--frames', type=int, default=24, help='clean frames for the ranges')
    parser.add_argument('--pictures', type=int, default=48, help='pictures for the cost')
    parser.add_argument('--out', type=Path, help='what was run (default out/quantize/<bundle>)')
    parser.add_argument('--threads', type=int, default=0, help='0: all cores')
    parser.add_argument('--weights', default='', help="origin of the backbone's weights")
    return parser.parse_args(arguments)
