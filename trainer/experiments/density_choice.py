# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Choose the size of the GMM baseline's mixture on the training drives alone.

    trainer density-choice config/train/pixood_camvid.yaml [--components 1 2 5 10 20]
                           [--reduced 8 16 32 64] [--report FILE]

A mixture with more parameters than the drives have independent views memorises them, and flags
the next drive. So every drive is left out in turn, of the fit and of the calibration, and the
share of its normal patches above the others' thresholds is compared with what was promised. The
size with the least mean |log2(observed / promised)| is the choice.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import DataError
from ood_perception.evaluation.reports import markdown_table
from ood_perception.metrics.false_alarm_rate import RATES

from ..config import load_recipe
from ..evaluation.promise_left_out import Rule, distance, left_out_rates
from ..features import FeatureSet
from ..heads.baseline_features import GmmDensity, fit_gmm
from ..heads.baselines import BaselineConfig
from ..layers import layer_name
from ..patches import IGNORED, select_patches
from ..stages import Trainer

LOG = logging.getLogger(__name__)
COMPONENTS, REDUCED = (1, 2, 5, 10, 20), (8, 16, 32, 64)
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drives:
    """
    Labelled patches of pictures, by drive.

    tokens: float16 (n, gh, gw, D). labels: uint8 (n, gh, gw), class ids, IGNORED = not used.
    names, sequences: of the n pictures.
    """

    tokens: npt.NDArray[np.float16]
    labels: UInt8Array
    names: tuple[str, ...]
    sequences: tuple[str, ...]

    def patches(self, without: str) -> npt.NDArray[np.float16]:
        """Return the labelled tokens, float16 (N, D), of all drives but one."""
        keep = np.array([sequence != without for sequence in self.sequences])
        found: npt.NDArray[np.float16] = self.tokens[keep][self.labels[keep] != IGNORED]
        return found


def drive_rates(
    fit: Drives, held_out: Drives, normal: Sequence[int], config: BaselineConfig
) -> dict[str, list[float]]:
    """
    Return drive -> share of its normal patches flagged at each of RATES, fitted on the others.

    normal: ids of the classes whose patches calibrate and are counted. Raises DataError for a
    single drive.
    """
    drives = sorted(set(held_out.sequences))
    if len(drives) < 2:
        raise DataError(f'held-out pictures of {drives} alone: one drive cannot judge another')
    found = {}
    for drive in drives:
        mixture = GmmDensity(fit_gmm(fit.patches(without=drive), config), factor=1)
        values = list(_normal_scores(mixture, held_out, normal))
        rates = left_out_rates(values, held_out.names, held_out.sequences, Rule('all pictures'))
        found[drive] = rates[drive]
    return found


@torch.inference_mode()
def _normal_scores(
    mixture: nn.Module, held_out: Drives, normal: Sequence[int]
) -> Iterator[npt.NDArray[np.floating[Any]]]:
    """Yield the scores of each picture's normal patches, float (n,)."""
    for tokens, labels in zip(held_out.tokens, held_out.labels, strict=True):
        picture = torch.from_numpy(tokens[None].astype(np.float32))
        yield mixture(picture, picture)[0].numpy()[np.isin(labels, list(normal))]


def drives_of(trainer: Trainer) -> tuple[Drives, Drives]:
    """Return the drives of the pictures that a head is fitted on, and of the held-out ones."""
    train = trainer.split[0]
    held_out, sequences = trainer.held_out()
    mine = [trainer.train_pictures.sequences[i] for i in train]
    return (
        _drives(trainer, trainer.train_features.subset(train), mine),
        _drives(trainer, held_out, sequences),
    )


def _drives(trainer: Trainer, features: FeatureSet, sequences: Sequence[str]) -> Drives:
    layer = layer_name(trainer.recipe.backbone.layers[-1])
    every = np.arange(len(features.names))
    labels = select_patches(features, trainer.class_names, trainer.recipe.patches).labels
    tokens = np.asarray(features.tokens[layer][every])
    return Drives(tokens, labels, tuple(features.names), tuple(sequences))


def choose(
    trainer: Trainer, components: Sequence[int], reduced: Sequence[int]
) -> tuple[BaselineConfig, str]:
    """Judge every size; return the best and the table of all."""
    fit, held_out = drives_of(trainer)
    chosen = trainer.recipe.bundle.in_distribution or trainer.class_names
    normal = [trainer.class_names.index(name) for name in chosen]
    lines, judged = [], []
    for k, r in product(components, reduced):
        config = replace(trainer.recipe.baseline, components=k, reduced=r)
        observed = drive_rates(fit, held_out, normal, config)
        judged.append((distance(observed), config))
        LOG.info('%d Gaussians on %d components: distance %.2f', k, r, judged[-1][0])
        cells = [' / '.join(f'{100 * rate:.2f}' for rate in row) for row in observed.values()]
        lines.append([str(k), str(r), *cells, f'{judged[-1][0]:.2f}'])
    promised = ' / '.join(f'{100 * rate:g}' for rate in RATES)
    drives = [f'{drive} at {promised} %' for drive in sorted(set(held_out.sequences))]
    table = markdown_table(['Gaussians', 'principal components', *drives, 'distance'], lines)
    return min(judged, key=lambda one: one[0])[1], table


def main(arguments: Sequence[str]) -> None:
    """Run `trainer density-choice`."""
    parser = argparse.ArgumentParser(
        'trainer density-choice',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('recipe', type=Path, help='YAML file, see config/train')
    parser.add_argument('--components', type=int, nargs='+', default=COMPONENTS, metavar='K')
    parser.add_argument('--reduced', type=int, nargs='+', default=REDUCED, metavar='R')
    parser.add_argument('--data', help="the data set's folder, instead of the recipe's root")
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--report', type=Path, help='Markdown file to write')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    options = parser.parse_args(arguments)
    changes = ['head.kind=baseline', 'head.score=gmm', *options.set]
    changes += [f'data.root={options.data}'] if options.data else []
    recipe = load_recipe(options.recipe, changes)
    trainer = Trainer(recipe, Path('out') / 'train' / recipe.name, cache=options.cache)
    chosen, table = choose(trainer, options.components, options.reduced)
    print(f'{table}\n{chosen.components} Gaussians on {chosen.reduced} principal components')
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(table, encoding='utf-8')
