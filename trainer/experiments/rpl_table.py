# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The table of RPL: losses and hosts on sets of anomalies, with seeds and intervals.

    trainer rpl-table config/train/rpl_table.yaml [--only NAME ...] [--seeds 42] [--sets NAME ...]

Every training and every result is made once and kept: a run that was stopped goes on, and a run of
a part is a part of the whole. The report shows what there is and names what is missing.
Nothing is chosen on these sets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.geometry import to_camera

from ..artefacts import key_of
from ..features import FeatureSet, View, size_for
from ..heads.rpl import FeatureAndResidual, Smoothing
from ..heads.rpl_losses import energy
from ..heads.rpl_stages import RplStages
from ..hosts.mobilenet_stages import MobileNetStages
from ..label_maps import tokens_of
from ..stages import Trainer
from .dev_sets import DevSet
from .rpl_report import write_report
from .rpl_rows import FROZEN, MOBILENET, RESIDUAL, RplRow, load_rpl_table
from .scoring import stretched
from .seeded_table import ScoreRow, SeededTable, slug, table_of_options, table_parser
from .uem_closed_set import measure_segmenter, measured

LOG = logging.getLogger(__name__)
Maps = list[npt.NDArray[np.float32]]


class RplTable(SeededTable):
    """The table of RPL at work."""

    def stages(self, row: RplRow, seed: int) -> RplStages:
        """Return the stages of one training; hosts of one seed are shared."""
        recipe, folder = row.recipe(self.config.recipe), self.config.folder
        place = folder / 'trainings' / f'{slug(row.name)}-{seed}'
        trainer = Trainer(recipe, place, cache=self.cache)
        shared = folder / 'hosts' / f'{row.host}-{seed}'
        if row.host == MOBILENET:
            return MobileNetStages(trainer, self.config.mobilenet, shared, seed)
        return RplStages(trainer, shared, seed)

    @cached_property
    def reference(self) -> RplStages:
        """The stages whose segmenter gives the predicted ground of all rows, trained."""
        stages = self.stages(RplRow('reference'), self.config.seeds[0])
        stages.segmenter()
        return stages

    def score_rows(self, row: RplRow, seed: int) -> dict[str, ScoreRow]:
        """Return the results of one training by score; that of the frozen host is shared."""
        stages = self.stages(row, seed)
        sources = {
            RESIDUAL: key_of(stages.trainer.folder / 'fit'),
            FROZEN: key_of(stages.segmenter_folder),
        }
        return {score: ScoreRow(row.name, score, at, seed) for score, at in sources.items()}

    def run(self) -> None:
        """Train and measure what is asked for and missing."""
        for row in self.config.trainings:
            for seed in self.seeds if self.asked(row.name) else ():
                stages = self.stages(row, seed)
                stages.fit()
                self._closed_set(stages, self.part.closed_set)
                for data in self.data.sets:
                    self._measure(row, seed, stages, data)

    def _measure(self, row: RplRow, seed: int, stages: RplStages, data: DevSet) -> None:
        rows = self.score_rows(row, seed)
        missing = {s: r for s, r in rows.items() if self.results.load(r, data.name) is None}
        if not missing:
            return
        LOG.info('%s, seed %d, %s: %s', row.name, seed, data.name, ', '.join(missing))
        pictures = list(self._maps(stages, self.features(stages, data), data))
        for score, one in missing.items():
            pixels = [maps[score] for maps in pictures]
            regions = self.data.regions(data)
            scored = {name: self.data.scored(data, pixels, at) for name, at in regions.items()}
            self.results.save(one, data.name, scored)

    def features(self, stages: RplStages, data: DevSet) -> FeatureSet:
        """Extract (or find) what a host reads of a set, stretched to its longest side."""
        if not isinstance(stages, MobileNetStages):
            return self.data.features(data)
        height, width = data.pictures.read(0)[0].shape[:2]
        size = size_for((height, width), data.longest, stages.trunk.output_stride)
        precision = stages.trainer.recipe.view.precision
        return stages.maps(data.pictures, View(size, 'stretch', precision=precision))

    @torch.inference_mode()
    def _maps(
        self, stages: RplStages, features: FeatureSet, data: DevSet
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Yield both scores of every picture at label size."""
        host, block = stages.host(), stages.fit()
        both, smoothing = FeatureAndResidual(host, block).eval(), Smoothing()
        for index, labels in enumerate(data.labels):
            feature, residual = both(*tokens_of(features, host.layers, [index])).chunk(2, -1)
            inputs = {RESIDUAL: feature + residual, FROZEN: feature}
            geometry = stretched(labels, features)
            grids = {s: smoothing(energy(host.classifier(v)))[0] for s, v in inputs.items()}
            yield {score: to_camera(grid.numpy(), geometry) for score, grid in grids.items()}

    def _closed_set(self, stages: RplStages, split: str) -> None:
        """Measure a host's mean IoU on a labelled split, once."""
        place, trainer = stages.segmenter_folder, stages.trainer
        path, key = place.with_name(f'{place.name}-{split}.json'), key_of(place)
        if not split or measured(path, key):
            return
        if isinstance(stages, MobileNetStages):
            from ..datasets import load_pictures

            data = trainer.recipe.data
            pictures = load_pictures(data.layout, trainer.recipe.data_root(), split)
            features = stages._features(pictures)
        else:
            features = trainer.features(split)
        names = trainer.class_names
        measure_segmenter(path, stages.host(), features, names, {'key': key, 'split': split})


def main(arguments: Sequence[str]) -> None:
    """Run `trainer rpl-table`."""
    options = table_parser('rpl-table', __doc__).parse_args(arguments)
    config, part = table_of_options(options, load_rpl_table)
    table = RplTable(config, part, options.cache)
    table.run()
    print(f'table: {write_report(table)}')
