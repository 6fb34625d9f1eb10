# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Give a bundle its int8 precision: ranges from clean frames, layers kept by their measured effect.

    python -m trainer quantize BUNDLE --root FOLDER      (FOLDER: camvid/ and outlier_objects/)
    python -m trainer quantize water_default --to FOLDER --root FOLDER --layout maritime

Ranges come from the training frames of a data set (CamVid's by default); costs from its validation
frames with objects pasted on the ground, on which nothing else is reported. One group of products
at a time is left in bf16: first each kind, then each block of the kind that costs most. What buys
AP back stays in bf16, best first, until the loss is small enough. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.manifest import MANIFEST_NAME, PrecisionSpec
from ood_perception.bundle.store import Bundle, bundle_path, file_spec, load_bundle, write_manifest
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.cpu import REDUCED_BITS, openvino_int8
from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.int8 import (
    INT8,
    QUANTIZATION_NAME,
    REDUCED_RANGE,
    Quantization,
    linear_nodes,
    write_quantization,
)
from ood_perception.engines.openvino import OpenVinoEngine
from ood_perception.engines.plan import LARGEST_LOSS
from ood_perception.engines.trial import remember
from ood_perception.errors import BundleError, ConfigError
from ood_perception.evaluation.results import write_json
from ood_perception.files import check_writable, make_folder, sha256_of
from ood_perception.image.geometry import to_network
from ood_perception.reports.html import render

from ...augment.cutouts import PasteSettings, load_cutouts
from ...data.images import ImageList
from ...datasets import load_images
from ...datasets.pasted import write_pasted_set
from ..pack import files_of_bundle
from .cost import Cost, CostBench, Outputs, geometries_of, groups_of
from .ranges import measured_quantization

LOG = logging.getLogger(__name__)
TARGET_LOSS = LARGEST_LOSS / 2  # points of AP: half of what `precision: auto` allows
MOST_KEPT = 4  # products that may stay in bf16 at the end: each costs speed
CARD_TITLE = '\n## Precisions\n'
"""What templates/precisions.md.j2 begins with."""


class Search:
    """
    Chooses which products stay in bf16 by their effect on AP; trials: name -> cost.

    Where the paired bootstrap does not resolve a gain, the mean |difference| of surprisal on the
    same images decides: it is the same effect, measured with far less noise.
    """

    def __init__(self, bench: CostBench, facts: Quantization) -> None:
        self.bench, self.facts = bench, facts
        self.trials: dict[str, Cost] = {}

    def run(self, names: Sequence[str]) -> Quantization:
        """Return the facts with what is kept; names: of all products with weights."""
        whole = self._trial('all int8', ())
        kinds = groups_of(names)
        worst = kinds[self._ranked(kinds, whole)[0]]
        order = self._ranked({node: [node] for node in worst}, whole)
        kept: list[str] = []
        best = self.trials['all int8']
        for node in order[:MOST_KEPT]:
            if best.loss <= TARGET_LOSS and best.interval[1] < LARGEST_LOSS:
                break
            kept.append(node)
            self._trial(f'kept {len(kept)}', kept)
            best = self.trials[f'kept {len(kept)}']
        return replace(self.facts, kept=tuple(kept))

    def _trial(self, name: str, kept: Sequence[str]) -> Outputs:
        outputs = self.bench.outputs('int8', replace(self.facts, kept=tuple(kept)))
        self.trials[name] = cost = self.bench.cost(outputs)
        LOG.info(
            '%-28s AP %6.2f, loss %5.2f [%5.2f, %5.2f], mean |d| %.4f',
            *(name, cost.average_precision, cost.loss, *cost.interval, cost.difference),
        )
        return outputs

    def _ranked(self, groups: Mapping[str, Sequence[str]], whole: Outputs) -> list[str]:
        """Return the groups by what leaving each in bf16 buys back, the most first."""
        keys = {}
        for name, nodes in groups.items():
            outputs = self._trial(f'without {name}', nodes)
            cost = self.trials[f'without {name}']
            resolved = self.bench.gain(outputs, whole).low > 0
            keys[name] = (cost.loss if resolved else float('inf'), cost.difference)
        return sorted(keys, key=lambda name: keys[name])


def validation_images(
    images: ImageList, objects: Path, ground: Sequence[str], folder: Path, count: int
) -> ImageList:
    """
    Return images, evenly spaced, with objects pasted on the ground.

    objects: folder of cut-outs in COCO's format. ground: names of classes; ConfigError for
    others. folder: where the pasted images are kept.
    """
    unknown = [name for name in ground if name not in images.classes.names]
    if unknown or not ground:
        raise ConfigError(
            f'ground classes {list(ground)}: choose with --ground among those of the images, '
            f'{", ".join(images.classes.names)}'
        )
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    ids = tuple(images.classes.names.index(name) for name in ground)
    cutouts = load_cutouts(objects, 'selection')
    chosen = images.subset(dict.fromkeys(places.tolist()))
    return write_pasted_set(chosen, cutouts, folder / f'pasted-{count}', PasteSettings(ground=ids))


def calibration_frames(bundle: Bundle, frames: ImageList, count: int) -> list[Any]:
    """Return uint8 (h, w, 3) clean frames at network size, evenly spaced."""
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    images = [frames.read(int(index))[0] for index in places]
    return [to_network(image, geometries_of(bundle, image)[0]) for image in images]


def main(arguments: Sequence[str]) -> None:
    """Run `trainer quantize`."""
    options = _options(arguments)
    source = bundle_path(options.bundle)
    bundle = complete(load_bundle(source), options.weights or None)
    if source.is_file():
        raise BundleError(f'{source} is packed: give its folder')
    folder = options.out or Path('out') / 'quantize' / bundle.manifest.name
    check_writable(folder)
    place = options.data or options.root / options.layout
    splits = (options.train, options.validation)
    train, validation = (load_images(options.layout, place, split) for split in splits)
    ground = options.ground or bundle.manifest.ground_classes
    objects = options.root / 'outlier_objects'
    images = validation_images(validation, objects, ground, folder, options.images)
    bits = openvino_int8().weight_bits  # without VNNI all of this is measured with 7
    data = (
        f'{options.layout} {options.validation} with pasted objects, true {" and ".join(ground)}'
    )
    bench = CostBench(bundle, images, folder / 'outputs', options.threads, bits, data)
    stage = next(one for one in bundle.manifest.stages if one.reduced_precision)
    backbone = bundle.stage_path(stage)
    names = [node.name for node in linear_nodes(read_model(backbone))]
    if not names:
        raise BundleError(
            f'the backbone of {source} has no matrix products with weights, which is what int8 '
            'quantises: convolutional backbones run in f32 or bf16'
        )
    LOG.info('ranges of the activations on %d frames', options.frames)
    frames = calibration_frames(bundle, train, options.frames)
    facts = measured_quantization(backbone, frames)
    precisions = {}
    if 'bf16' not in OpenVinoEngine.slow_precisions():
        precisions['bf16'] = precision_spec(bench.cost(bench.outputs('bf16')), bench, '', {})
    search = Search(bench, facts)
    given = options.kept is not None
    facts = replace(facts, kept=tuple(options.kept)) if given else search.run(names)
    what = {'kept_in_bf16': list(facts.kept), 'calibration_frames': options.frames}
    precisions |= int8_specs(bench, facts, what)
    trials = {name: asdict(value) for name, value in search.trials.items()}
    write_json(folder / 'search.json', {'trials': trials, 'kept': facts.kept})
    write_precisions(bundle, options.to or source, facts, precisions)
    _report(options.to or source, options)


def int8_specs(
    bench: CostBench, facts: Quantization, what: dict[str, Any]
) -> dict[str, PrecisionSpec]:
    """
    Return the manifest's entries of int8, and of int8 with 7-bit weights for CPUs without VNNI.

    On such a CPU both hold what 7 bits cost, and say so: 8 bits cannot be measured there.
    """
    specs = {}
    for name, bits in ((INT8, bench.weight_bits), (REDUCED_RANGE, REDUCED_BITS)):
        cost = bench.cost(bench.outputs(INT8, facts, bits))
        specs[name] = precision_spec(cost, bench, QUANTIZATION_NAME, {**what, 'weight_bits': bits})
    return specs


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
            'images': len(bench.images),
            'data': bench.data,
            'runtime': 'openvino',
            'float32_average_precision': round(bench.float_precision, 4),
            'relative_time_of_backbone': round(cost.relative_time, 3),
        },
    )


def write_precisions(
    bundle: Bundle, path: Path, facts: Quantization, precisions: dict[str, PrecisionSpec]
) -> None:
    """Write the bundle again with its facts, manifest entry and card section; whole or not."""
    section = render('precisions.md.j2', precisions=precisions, facts=facts, most=LARGEST_LOSS)

    def fill(folder: Path) -> None:
        for name in (*bundle.manifest.files, MANIFEST_NAME):
            if (bundle.root / name).is_file():
                shutil.copyfile(bundle.root / name, folder / name)
        write_quantization(folder / QUANTIZATION_NAME, facts)
        card = folder / 'MODEL_CARD.md'
        if card.is_file():
            text = card.read_text(encoding='utf-8').split(CARD_TITLE)[0].rstrip() + '\n'
            card.write_text(text + section, encoding='utf-8')
        (folder / MANIFEST_NAME).unlink()
        files = {file.name: file_spec(file) for file in sorted(folder.iterdir())}
        manifest = dataclasses.replace(bundle.manifest, precisions=precisions, files=files)
        write_manifest(folder, manifest)

    make_folder(path, fill, files_of_bundle(path))
    remember(sha256_of(path / MANIFEST_NAME))  # as pack_bundle does


def _report(path: Path, options: argparse.Namespace) -> None:
    """Check the written bundle and say what auto takes."""
    bundle = complete(load_bundle(path), options.weights or None)
    engine, report = create_checked_engine(bundle, EngineOptions(threads=options.threads))
    with engine:
        print(f'{path}: {engine.choice}')
        print(f'golden: |d surprisal| {report.surprisal_difference:.3f}')


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', nargs='?', default='', help='a folder; default: the shipped one')
    parser.add_argument('--to', type=Path, help='write the bundle here instead of in its place')
    parser.add_argument('--root', type=Path, default=Path(os.environ.get('OOD_DATA', '.')))
    parser.add_argument('--layout', default='camvid', help='of the data set; default: %(default)s')
    parser.add_argument('--data', type=Path, help='its folder; default: <root>/<layout>')
    parser.add_argument('--train', default='train', help='split for the ranges')
    parser.add_argument('--validation', default='val', help='split for the cost')
    parser.add_argument('--ground', nargs='+', default=[], help="default: the bundle's")
    parser.add_argument('--frames', type=int, default=24, help='clean frames for the ranges')
    parser.add_argument('--images', type=int, default=48, help='images for the cost')
    parser.add_argument('--kept', nargs='*', help='products that stay in bf16: no search')
    parser.add_argument('--out', type=Path, help='what was run (default out/quantize/<bundle>)')
    parser.add_argument('--threads', type=int, default=0, help='0: all cores')
    parser.add_argument('--weights', default='', help="origin of the backbone's weights")
    return parser.parse_args(arguments)
