# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a training will cost before it is run: time, memory, disk and network of its large stages.

Each stage's own code runs on a few random images here; what it took is multiplied by how often the
training will do it (docs/scaling.md). Times are of one CPU core: divide by cores and processes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ood_perception.errors import ConfigError
from ood_perception.json_files import json_text

from .backbones import load_backbone
from .backbones.base import Backbone, layer_name
from .evaluation.options import add_training_arguments, apply_training_arguments, command_parser
from .features import FeatureSet, forward_tokens
from .heads.pixood.condensation import condense
from .nets.patch_classifier import evaluate_classifier
from .nets.patches import ClassTokens
from .recipe import Recipe, load_recipe
from .training.patch_classifier import ClassifierRun

_GIB = 1 << 30
_SIZES = ('memory', 'disk', 'network')


@dataclass(frozen=True)
class Amounts:
    """
    How much there is.

    extracted: images whose tokens are made. train, select, fitted: those that the classifier
    trains on, that choose its epoch, that etalons are found on. classes: their number. patches: of
    one class on an image that carry its label, on average.
    """

    extracted: int
    train: int
    select: int
    fitted: int
    classes: int
    patches: float


@dataclass(frozen=True)
class Stage:
    """
    A stage's cost.

    core_seconds: of one core of this machine. operations: multiplications and additions of its
    matrix products, for other machines. memory, disk, network: bytes at a time; that stay; that
    each process sends while it shares the work, or exchanges with an object store.
    """

    name: str
    core_seconds: float
    operations: float
    memory: float
    disk: float
    network: float


def predict(recipe: Recipe, backbone: Backbone, amounts: Amounts) -> list[Stage]:
    """Return the stages of a PixOOD training, each timed in miniature on one thread."""
    return [
        _extraction(recipe, backbone, amounts),
        _classifier(recipe, backbone, amounts),
        _condensation(recipe, backbone, amounts),
    ]


def _grid(recipe: Recipe, backbone: Backbone) -> tuple[int, int]:
    return recipe.view.height // backbone.patch, recipe.view.width // backbone.patch


def _extraction(recipe: Recipe, backbone: Backbone, amounts: Amounts) -> Stage:
    view, layers = recipe.view, recipe.backbone.layers
    baked = backbone.baked(*view.size, layers)
    images = np.random.default_rng(0).integers(0, 255, (1, *view.size, 3), np.uint8)
    each = _seconds(lambda: list(forward_tokens(baked, images, view.precision)))
    count = amounts.extracted
    rows, columns = _grid(recipe, backbone)
    widths = [backbone.width(layer) for layer in layers]
    tokens, width = rows * columns, max(widths)
    deep = 1 + max(int(str(layer).rpartition('_')[2]) for layer in layers)
    row = 2 * tokens * sum(widths) + view.height * view.width
    weights = 4 * sum(parameter.numel() for parameter in baked.parameters())
    return Stage(
        'extraction',
        core_seconds=count * each,
        operations=count * deep * (24 * tokens * width**2 + 4 * tokens**2 * width),
        memory=weights + 4 * 8 * 4 * tokens * width,  # a batch of 4 with its hidden layer
        disk=count * row,
        network=count * row,
    )


def _classifier(recipe: Recipe, backbone: Backbone, amounts: Amounts) -> Stage:
    config, classes = recipe.classifier, amounts.classes
    features = _random_features(recipe, backbone, config.batch, classes)
    layers = list(features.tokens)
    run = ClassifierRun(features, features, layers, classes, config)
    step = _seconds(lambda: run._advance())
    one = features.subset([0])
    look = _seconds(lambda: evaluate_classifier(run.model, one, config.matmul))
    steps = config.epochs * amounts.train / config.batch
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    tokens = math.prod(_grid(recipe, backbone))
    pixels = recipe.view.height * recipe.view.width * classes
    return Stage(
        'classifier',
        core_seconds=steps * step + config.epochs * amounts.select * look,
        operations=config.epochs * (3 * amounts.train + amounts.select) * 2 * tokens * weights,
        memory=4 * 4 * weights + 4 * config.batch * 3 * pixels / config.pixel_step**2 + 4 * pixels,
        disk=4 * weights,
        network=steps * 2 * 4 * weights,
    )


def _condensation(recipe: Recipe, backbone: Backbone, amounts: Amounts) -> Stage:
    settings = recipe.condensation
    count = amounts.fitted
    batches = count / settings.images
    dim = backbone.width(recipe.backbone.layers[-1])
    etalons = settings.budget(int(amounts.patches * count))
    # just enough images for so many etalons
    images = max(settings.images, math.ceil(etalons / max(amounts.patches, 1e-9)))
    classes = [_random_tokens(images, amounts.patches, dim, c) for c in range(amounts.classes)]
    small = replace(settings, etalons=max(etalons, 1), patches_per_etalon=1)

    def seconds(epochs: int) -> float:
        return _seconds(lambda: condense(classes, replace(small, epochs=epochs)))

    long, short = seconds(12), seconds(2)
    each = (long - short) / 10 / math.ceil(images / settings.images)
    ends = max(short - (long - short) / 5, 0.0) / images  # what is done once, before and after
    patches = amounts.patches * amounts.classes
    states = 4 * 4 * etalons * amounts.classes * dim
    return Stage(
        'condensation',
        core_seconds=settings.epochs * batches * each + count * ends,
        operations=settings.epochs * count * 4 * patches * etalons * dim,
        memory=states + settings.images * 4 * patches * (dim + 4 * etalons) + 2 * patches * dim,
        disk=count * 2 * patches * dim,  # while it runs: the tokens of every class
        network=settings.epochs * batches * 8 * etalons * amounts.classes * (dim + 2),
    )


def _random_features(recipe: Recipe, backbone: Backbone, count: int, classes: int) -> FeatureSet:
    rng = np.random.default_rng(0)
    rows, columns = _grid(recipe, backbone)
    tokens = {
        layer_name(layer): rng.standard_normal(
            (count, rows, columns, backbone.width(layer)), np.float32
        ).astype(np.float16)
        for layer in recipe.backbone.layers
    }
    labels = rng.integers(0, classes, (count, *recipe.view.size), np.uint8)
    size = recipe.view.size
    names = tuple(map(str, range(count)))
    return FeatureSet(names, tokens, labels, *size, backbone.patch, '')


def _random_tokens(images: int, patches: float, dim: int, seed: int) -> ClassTokens:
    rng = np.random.default_rng(seed)
    starts = np.round(np.arange(images + 1) * patches).astype(np.int64)
    values = rng.standard_normal((int(starts[-1]), dim), np.float32).astype(np.float16)
    return ClassTokens(values, starts)


def _seconds(work: Callable[[], object]) -> float:
    """Return the least CPU time of three runs, after one that is not counted."""
    found = []
    for _ in range(4):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found[1:])


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = command_parser(__doc__)
    add = result.add_argument
    add('recipe', type=Path, help='YAML file of a PixOOD head, see config/train')
    add('--images', type=int, required=True, help='of the training split')
    add('--others', type=int, default=0, help='images of the calibration splits')
    add('--classes', type=int, default=19)
    add('--labelled', type=float, default=0.7, help='fraction of the patches of one class alone')
    add('--workers', type=int, default=1, help='processes, on as many cores')
    add('--json', action='store_true')
    add('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    add_training_arguments(result)
    return result


def main(argv: Sequence[str]) -> int:
    """Print what a training on so many images will cost."""
    options = parser().parse_args(argv)
    if options.images < 1 or options.workers < 1 or options.classes < 1:
        raise ConfigError('--images, --workers, --classes: give 1 or more')
    options.threads = 1
    apply_training_arguments(options)
    recipe = load_recipe(options.recipe, options.set)
    if recipe.head.kind != 'pixood':
        raise ConfigError(
            f'{options.recipe}: a {recipe.head.kind} head; pixood alone is known here'
        )
    backbone = load_backbone(recipe.backbone, options.cache)
    fitted = round(options.images * (1 - recipe.data.calibration_fraction))
    select = round(fitted * recipe.data.selection_fraction)
    tokens = math.prod(_grid(recipe, backbone))
    amounts = Amounts(
        extracted=options.images + options.others,
        train=fitted - select,
        select=select,
        fitted=fitted,
        classes=options.classes,
        patches=tokens * options.labelled / options.classes,
    )
    stages = predict(recipe, backbone, amounts)
    print(
        json_text([vars(one) for one in stages])
        if options.json
        else _table(stages, options.workers)
    )
    return 0


def _table(stages: Sequence[Stage], workers: int) -> str:
    lines = [
        f'{"stage":14}{"hours":>9}{"PFLOP":>9}' + ''.join(f'{n + " GiB":>13}' for n in _SIZES)
    ]
    for one in stages:
        hours = one.core_seconds / 3600 / workers
        sizes = ''.join(f'{getattr(one, name) / _GIB:13.2f}' for name in _SIZES)
        lines.append(f'{one.name:14}{hours:9.2f}{one.operations / 1e15:9.3f}{sizes}')
    return '\n'.join(lines)
