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

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import ConfigError
from ood_perception.geometry import to_camera

from .artefacts import key_of
from .data import content_sha256
from .features import FeatureSet, View, size_for
from .heads.rpl import FeatureAndResidual, Smoothing
from .heads.rpl_losses import energy
from .heads.rpl_stages import RplStages
from .hosts.mobilenet_stages import MobileNetStages
from .label_maps import tokens_of
from .results import ResultFolder
from .rpl_report import write_report
from .rpl_rows import FROZEN, MOBILENET, RESIDUAL, RplRow, RplTableConfig, load_rpl_table
from .scoring import stretched
from .stages import Trainer
from .uem_closed_set import measure_segmenter, measured
from .uem_rows import ScoreRow
from .uem_sets import DevSet, DevSets

LOG = logging.getLogger(__name__)
Maps = list[npt.NDArray[np.float32]]


class RplTable:
    """A table at work; only, seeds, sets: what of it to run, () = all. limit: see DevSets."""

    def __init__(
        self,
        config: RplTableConfig,
        only: Sequence[str] = (),
        seeds: Sequence[int] = (),
        sets: Sequence[str] = (),
        limit: int = 0,
        cache: Path | None = None,
    ) -> None:
        for option, asked, known in (
            ('--only', only, [row.name for row in config.trainings]),
            ('--seeds', seeds, list(config.seeds)),
            ('--sets', sets, list(config.sets)),
        ):
            wrong = [value for value in asked if value not in known]
            if wrong:
                raise ConfigError(f'{option} {wrong} is not in the table, which has {known}')
        chosen = {
            name: side for name, side in config.sets.items() if name in (sets or config.sets)
        }
        self.config, self.cache, self.limit = replace(config, sets=chosen), cache, limit
        self.rows = [row for row in config.trainings if not only or row.name in only]
        self.seeds = tuple(seed for seed in config.seeds if not seeds or seed in seeds)

    def stages(self, row: RplRow, seed: int) -> RplStages:
        """Return the stages of one training; hosts of one seed are shared."""
        slug = ''.join(c if c.isalnum() else '-' for c in row.name.lower())
        recipe, folder = row.recipe(self.config.recipe), self.config.folder
        trainer = Trainer(recipe, folder / 'trainings' / f'{slug}-{seed}', cache=self.cache)
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

    @cached_property
    def data(self) -> DevSets:
        """The sets that are asked for."""
        return DevSets(self.config, self.limit, self.reference)

    @cached_property
    def results(self) -> ResultFolder:
        """Where results are kept, by the data that they depend on."""
        parts = [[s.name, s.longest, content_sha256(s.pictures)] for s in self.data.sets]
        mark = [key_of(self.reference.segmenter_folder), self.config.pixel_step]
        key = hashlib.sha256(json.dumps([parts, *mark]).encode()).hexdigest()[:16]
        return ResultFolder(self.config.folder / 'results' / key, key, self.config.resamples)

    def score_rows(self, row: RplRow, seed: int) -> dict[str, ScoreRow]:
        """Return the results of one training by score; that of the frozen host is shared."""
        stages = self.stages(row, seed)
        sources = {
            RESIDUAL: key_of(stages.trainer.folder / 'fit'),
            FROZEN: key_of(stages.segmenter_folder),
        }
        return {score: ScoreRow(row.name, score, at, seed) for score, at in sources.items()}

    def run(self, closed_set: str = '') -> None:
        """Train and measure what is asked for and missing; closed_set: a split for mean IoU."""
        for row in self.rows:
            for seed in self.seeds:
                stages = self.stages(row, seed)
                stages.fit()
                self._closed_set(stages, closed_set)
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
            from .datasets import load_pictures

            data = trainer.recipe.data
            pictures = load_pictures(data.layout, trainer.recipe.data_root(), split)
            features = stages._features(pictures)
        else:
            features = trainer.features(split)
        names = trainer.class_names
        measure_segmenter(path, stages.host(), features, names, {'key': key, 'split': split})


def main(arguments: Sequence[str]) -> None:
    """Run `trainer rpl-table`."""
    parser = argparse.ArgumentParser(
        'trainer rpl-table',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('table', type=Path, help='YAML file, see config/train/rpl_table.yaml')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='rows by name')
    parser.add_argument('--seeds', nargs='+', type=int, default=[])
    parser.add_argument('--sets', nargs='+', default=[])
    parser.add_argument('--limit', type=int, default=0, help='first N pictures of each set')
    parser.add_argument('--closed-set', default='', metavar='SPLIT', help='mean IoU of it, too')
    parser.add_argument('--folder', type=Path, help="instead of the table's")
    parser.add_argument('--report', type=Path, help="instead of the table's")
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_rpl_table(options.table)
    for name in ('folder', 'report'):
        if getattr(options, name):
            config = replace(config, **{name: getattr(options, name)})
    table = RplTable(
        config, options.only, options.seeds, options.sets, options.limit, options.cache
    )
    table.run(options.closed_set)
    print(f'table: {write_report(table)}')
