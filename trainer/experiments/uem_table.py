# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The table of UEM: forms, scores and outliers on sets of anomalies, with seeds and intervals.

    trainer uem-table config/train/uem_table.yaml [--only NAME ...] [--seeds 42] [--sliding]

Every training and every result is made once and kept: a run that was stopped goes on, and a run of
a part is a part of the whole. The report shows what there is and names what is missing.
Nothing is chosen on these sets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..artefacts import key_of
from ..heads.uem import Uem
from ..heads.uem_stages import UemStages
from ..segmenter import Segmenter
from ..stages import Trainer
from .dev_sets import DevSet
from .seeded_table import (
    Part,
    ScoreRow,
    SeededTable,
    slug,
    table_of_options,
    table_parser,
)
from .uem_bundles import bundle_maps
from .uem_closed_set import measure_closed_set, measure_segmenter, measured
from .uem_report import write_report
from .uem_rows import OWN_SCORES, SCORES, Training, UemTableConfig, load_uem_table
from .uem_scores import PictureMaps, sliding_scores, whole_maps

LOG = logging.getLogger(__name__)


class UemTable(SeededTable):
    """The table of UEM at work: trainings and bundles."""

    def __init__(self, config: UemTableConfig, part: Part, cache: Path | None = None) -> None:
        super().__init__(config, part, cache, list(config.bundles))

    def stages(self, training: Training, seed: int) -> UemStages:
        """Return the stages of one training; segmenters are shared between trainings."""
        folder = self.config.folder
        place = folder / 'trainings' / f'{slug(training.name)}-{seed}'
        trainer = Trainer(training.recipe(self.config.recipe), place, cache=self.cache)
        shared = folder / 'segmenters' / f'{training.segmenter}-{seed}'
        return UemStages(trainer, shared, seed, training.fewer(self.config.recipe))

    @cached_property
    def reference(self) -> UemStages:
        """The training whose segmenter gives the predicted ground of all rows, trained."""
        stages = self.stages(self.config.trainings[0], self.config.seeds[0])
        stages.segmenter()
        return stages

    def run(self) -> None:
        """Train and measure what is asked for and missing."""
        for training in self.config.trainings:
            for seed in self.seeds if self.asked(training.name) else ():
                self.run_training(training, seed)
        for name, place in self.config.bundles.items():
            if self.asked(name):
                self.run_bundle(name, place)

    def run_training(self, training: Training, seed: int) -> None:
        """Train one module and measure all its scores."""
        stages = self.stages(training, seed)
        module, segmenter = stages.fit(), stages.segmenter()
        rows = self.rows(training, seed)
        self._closed_set(stages, segmenter)
        self._both_closed_sets(training, seed, segmenter, module)
        for data in self.data.sets:
            missing = [row for row in rows if self.results.load(row, data.name) is None]
            if missing:
                LOG.info(
                    '%s, seed %d, %s: %d scores', training.name, seed, data.name, len(missing)
                )
                self._save(missing, data, self._maps(data, stages, segmenter, module))

    def rows(self, training: Training, seed: int) -> list[ScoreRow]:
        """Return the results of one training; those of the segmenter are shared."""
        stages, view = self.stages(training, seed), self._view_name()
        own = key_of(stages.trainer.folder / 'fit')
        shared = key_of(stages.segmenter_folder)
        return [
            ScoreRow(training.name, score, own if score in OWN_SCORES else shared, seed, view)
            for score in SCORES
        ]

    def _view_name(self) -> str:
        sliding = self.config.sliding
        return f'sliding {sliding.window} {sliding.stride}' if self.part.sliding else 'whole'

    def _maps(
        self, data: DevSet, stages: UemStages, segmenter: Segmenter, module: Uem
    ) -> Iterable[PictureMaps]:
        if not self.part.sliding:
            known = self.data.known(data, stages)
            last = segmenter.layers[-1]
            return whole_maps(known, module, last, self.data.features(data), data.pictures)
        trainer, recipe = stages.trainer, stages.trainer.recipe
        return sliding_scores(
            *(segmenter, module, trainer.backbone, recipe.backbone.layers, data.pictures),
            *(self.config.sliding, recipe.view.precision),
        )

    def _save(self, rows: Sequence[ScoreRow], data: DevSet, maps: Iterable[PictureMaps]) -> None:
        """Measure scores one after the other: the maps of all at once would not fit in memory."""
        kept, regions = list(maps), self.data.regions(data)
        for row in rows:
            pixels = [one(row.score) for one in kept]
            scored = {name: self.data.scored(data, pixels, at) for name, at in regions.items()}
            self.results.save(row, data.name, scored)

    def run_bundle(self, name: str, place: str) -> None:
        """Measure a packed bundle by the node's pipeline, in the same regions."""
        row, bundle = bundle_row(name, place)
        for data in self.data.sets:
            if self.results.load(row, data.name) is None:
                LOG.info('%s, %s', name, data.name)
                self._save([row], data, bundle_maps(bundle, data.pictures))

    def _closed_set(self, stages: UemStages, segmenter: Segmenter) -> None:
        """Measure a segmenter's IoU on a labelled split, once."""
        split, place = self.part.closed_set, stages.segmenter_folder
        path, key = place.with_name(f'{place.name}-{split}.json'), key_of(place)
        if split and not measured(path, key):
            trainer = stages.trainer
            facts = {'key': key, 'split': split}
            measure_segmenter(path, segmenter, trainer.features(split), trainer.class_names, facts)

    def _both_closed_sets(
        self, training: Training, seed: int, segmenter: Segmenter, module: Uem
    ) -> None:
        """Measure the IoU with and without the module, once for each pair of heads."""
        split, stages = self.part.closed_set, self.stages(training, seed)
        name = f'{training.segmenter}-{training.form}-{split}'
        path = self.config.folder / 'closed_set' / f'{name}.json'
        key = key_of(stages.segmenter_folder)
        if not split or seed != self.config.seeds[0] or measured(path, key):
            return
        features, names = stages.trainer.features(split), stages.trainer.class_names
        facts = {'key': key, 'split': split, 'seed': seed, 'training': training.name}
        measure_closed_set(path, segmenter, module, features, names, facts)


def bundle_row(name: str, place: str) -> tuple[ScoreRow, Any]:
    """Return a bundle's row and the bundle, its weights completed."""
    from ood_perception.bundle.completion import complete
    from ood_perception.bundle.store import default_bundle_path, load_bundle

    bundle = complete(load_bundle(place or default_bundle_path()))
    return ScoreRow(name, 'surprisal', bundle.sha256), bundle


def main(arguments: Sequence[str]) -> None:
    """Run `trainer uem-table`."""
    parser = table_parser('uem-table', __doc__)
    parser.add_argument('--sliding', action='store_true', help='windows at the own resolution')
    options = parser.parse_args(arguments)
    config, part = table_of_options(options, load_uem_table)
    table = UemTable(config, part, options.cache)
    table.run()
    print(f'table: {write_report(table)}')
