# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The table of cDNP: number of references, features, k and score on sets of anomalies.

    trainer knn-table config/train/knn_table.yaml [--only ROW ...] [--sets NAME ...] [--latency]

One pass over the references serves all their numbers: a smaller number is a prefix of the drawn
order. Results are kept: a run that was stopped goes on. --latency measures the search alone (on a
quiet machine, --only-latency nothing else), without it the last measurements are shown. Nothing is
chosen on these sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ood_perception.errors import ConfigError

from ..artefacts import key_of
from ..data import content_sha256
from ..features import FeatureSet
from ..heads.knn import KnnConfig, KnnHead, parametric_score, upsampled_distance
from ..heads.knn_fit import LabelledFeatures, fit_knn
from ..heads.knn_search import head_slices, mean_distances, running_distances
from ..heads.knn_stages import KnnStages
from ..heads.patch_logits import PatchLogits
from ..layers import Layer, layer_name
from ..stages import Trainer
from .dev_sets import DevSet, open_dev_set, set_features
from .knn_latency import measure_latency
from .knn_report import latency_text, write_report
from .knn_rows import KnnRow, KnnTableConfig, load_knn_table
from .results import ResultFolder
from .scoring import picture_tokens, read_mask, scored_pictures, write_ground_masks

LOG = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float32]
Wanted = tuple[int, int]  # references (0 = all), k


class KnnTable:
    """A table at work; only, sets: names of the rows and sets to run, () = all."""

    def __init__(
        self,
        config: KnnTableConfig,
        only: Sequence[str] = (),
        sets: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        names = [row.name for row in config.rows]
        for option, asked, known in (('--only', only, names), ('--sets', sets, [*config.sets])):
            wrong = [name for name in asked if name not in known]
            if wrong:
                raise ConfigError(f'{option} {wrong} is not in the table, which has {known}')
        self.config, self.cache = config, cache
        self.rows = [row for row in config.rows if row.name in (only or names)]
        self.chosen = [name for name in config.sets if name in (sets or config.sets)]
        self.trainer = Trainer(config.recipe, config.folder / 'training', cache=cache)
        self.stages = KnnStages(self.trainer)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The classifier's blocks and every feature that a row searches."""
        blocks = self.config.recipe.backbone.layers
        named = [layer_name(block) for block in blocks]
        features = dict.fromkeys(row.knn.feature for row in self.rows)
        return (*blocks, *(name for name in features if name not in named))

    @cached_property
    def known(self) -> FeatureSet:
        """The pictures that are fitted on, with every feature."""
        trainer = self.trainer
        train, select, _ = trainer.split
        features = trainer.features(trainer.recipe.data.train, self.layers)
        return features.subset(sorted([*train, *select]))

    @cached_property
    def head(self) -> KnnHead:
        """A small head of the classifier, for logits, labels and their range."""
        head, classifier = self.config.recipe.head, self.stages.classifier()
        logits = PatchLogits(classifier, head.logits, head.upsampling, head.half_weights)
        feature = layer_name(self.config.recipe.backbone.layers[-1])
        small = KnnConfig(feature=feature, references=8, normaliser_features=64)
        model = fit_knn(self.known, classifier, self.trainer.class_names, small, logits)
        return KnnHead(model, (), head.upsampling, 'logsumexp', head.logits, head.half_weights)

    @cached_property
    def sets(self) -> list[DevSet]:
        """The sets that are asked for."""
        root = self.config.recipe.data_root().parent
        return [open_dev_set(name, root, self.config.sets[name]) for name in self.chosen]

    @cached_property
    def results(self) -> ResultFolder:
        """Where results are kept, by the data that they depend on."""
        self.stages.classifier()
        parts = [[s.name, s.longest, content_sha256(s.pictures)] for s in self.sets]
        known = self.trainer.train_features.key, self.trainer.split[:2]
        text = json.dumps([parts, key_of(self.trainer.folder / 'classifier'), known])
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return ResultFolder(self.config.folder / 'results' / key, key, self.config.resamples)

    def features(self, data: DevSet) -> FeatureSet:
        """Extract (or find) the features of a set, stretched to its longest side."""
        return set_features(self.trainer, data, self.layers)

    def regions(self, data: DevSet, features: FeatureSet) -> dict[str, Any]:
        """Return the regions of a set; the ground is the hull of the classifier's road."""
        if data.road:
            return {'road': lambda _: None}
        mark = key_of(self.trainer.folder / 'classifier')[:16]
        folder = self.config.folder / 'ground' / f'{data.name}-{mark}'
        ground = self.config.recipe.bundle.ground_classes
        write_ground_masks(folder, data.pictures, features, self.head, ground)
        names = data.pictures.names
        return {
            'image': lambda _: None,
            'ground': lambda index: read_mask(folder / f'{names[index]}.png'),
        }

    def run(self) -> None:
        """Measure every row that is missing."""
        for search in dict.fromkeys(row.search() for row in self.rows):
            rows = [row for row in self.rows if row.search() == search]
            missing = {
                data.name: [r for r in rows if self.results.load(r, data.name) is None]
                for data in self.sets
            }
            if any(missing.values()):
                self._run_search(rows[0], missing)

    def _run_search(self, first: KnnRow, missing: Mapping[str, list[KnnRow]]) -> None:
        """Draw the references once, then score every set."""
        wanted = sorted({(r.knn.references, r.knn.k) for m in missing.values() for r in m})
        references, farthest = self._references(first, wanted)
        for data in self.sets:
            rows = missing[data.name]
            if not rows:
                continue
            LOG.info('%s, %s: %d rows', first.search(), data.name, len(rows))
            features = self.features(data)
            regions = self.regions(data, features)
            maps = list(self._maps(features, first, references, wanted))
            for row in rows:
                grids = (self._score(row, logits, found, farthest) for logits, found in maps)
                scored = scored_pictures(data.pictures, features, grids, regions)
                self.results.save(row, data.name, scored)

    def _references(
        self, row: KnnRow, wanted: Sequence[Wanted]
    ) -> tuple[npt.NDArray[np.float16], dict[int, float]]:
        """Return as many references as any row wants, and per k the largest distance."""
        knn, names = row.knn, self.trainer.class_names
        ids = [names.index(name) for name in row.classes]
        drawn = LabelledFeatures(self.known, knn.feature, ids, knn.seed)
        sample = drawn.first(knn.normaliser_features)
        farthest = {
            k: float(mean_distances(sample, sample, k, self._heads(knn), others=True).max())
            for k in sorted({k for _, k in wanted})
        }
        if knn.coreset == 'condensation':
            changed = replace(self.trainer.recipe, knn=knn)
            stages = KnnStages(replace(self.trainer, recipe=changed))
            return stages.coreset(self.known, row.classes), farthest
        most = max(count or len(drawn) for count, _ in wanted)
        return drawn.first(most), farthest

    def _heads(self, knn: KnnConfig) -> int:
        return self.trainer.backbone.architecture.heads if knn.head_split else 1

    @torch.inference_mode()
    def _maps(
        self, features: FeatureSet, row: KnnRow, references: npt.NDArray[np.float16],
        wanted: Sequence[Wanted],
    ) -> Iterator[tuple[FloatArray, dict[Wanted, FloatArray]]]:  # fmt: skip
        """Yield for each picture the scaled 1 - logsumexp on the grid and the distance maps."""
        head, feature = self.head, row.knn.feature
        slices = head_slices(references.shape[1], self._heads(row.knn))
        for index in tqdm(range(len(features.names)), desc=feature, unit='picture'):
            logits = head.upsampled_logits(*picture_tokens(features, head.layers, index))
            scaled = (parametric_score(logits)[0] - head.low) / head.range
            grid = torch.from_numpy(np.array(features.tokens[feature][index])).float()
            found = [running_distances(grid[..., s], references[:, s], wanted) for s in slices]
            means = {key: np.mean([one[key] for one in found], 0) for key in wanted}
            yield scaled.numpy(), means

    def _score(
        self, row: KnnRow, scaled: FloatArray, found: Mapping[Wanted, FloatArray],
        farthest: Mapping[int, float],
    ) -> FloatArray:  # fmt: skip
        """Return the row's score on the grid."""
        knn, factor = row.knn, self.config.recipe.head.upsampling
        if knn.score == 'logsumexp':
            return scaled
        small = torch.from_numpy(found[knn.references, knn.k])[None]
        distance: FloatArray = upsampled_distance(small, factor, knn.upsample)[0].numpy()
        return distance if knn.score == 'distance' else scaled + distance / farthest[knn.k]


def main(arguments: Sequence[str]) -> None:
    """Run `trainer knn-table`."""
    parser = argparse.ArgumentParser(
        'trainer knn-table',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('table', type=Path, help='YAML file, see config/train/knn_table.yaml')
    parser.add_argument('--only', nargs='+', default=[], metavar='ROW', help='default: all')
    parser.add_argument('--sets', nargs='+', default=[], help='of the table; default: all')
    parser.add_argument('--latency', action='store_true', help='measure the search, too')
    parser.add_argument('--only-latency', action='store_true', help='and nothing else')
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_knn_table(options.table)
    table = KnnTable(config, options.only, options.sets, options.cache)
    if options.latency or options.only_latency:
        print(latency_text(measure_latency(config, max(1, options.threads))))
    if not options.only_latency:
        table.run()
        print(f'table: {write_report(table)}')
