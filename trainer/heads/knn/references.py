# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Draw cDNP's references, measure its normalisers, and keep both in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import DataError
from ood_perception.image.geometry import labels_to_grid

from ...artifacts import write_npz
from ...features import FeatureSet, tokens_of
from ...nets.patch_classifier import Classifier, load_classifier, save_classifier
from ...progress import progress_bar
from .config import KnnConfig
from .model import KnnModel, mean_distances, parametric_score

CLASSIFIER_FILE, MODEL_FILE = 'classifier.safetensors', 'knn.npz'
Float16Array = npt.NDArray[np.float16]
Logits = Callable[..., torch.Tensor]


class LabelledFeatures:
    """
    The features of all cells with a label, in a drawn order: a prefix is a uniform sample.

    features: with the layer. chosen: label ids that count (default: all but 255).
    The label of a cell is the one at its centre.
    """

    def __init__(
        self, features: FeatureSet, layer: str, chosen: Sequence[int] = (), seed: int = 42
    ) -> None:
        self.tokens = features.tokens[layer]
        grid = (features.height // features.patch, features.width // features.patch)
        wanted = np.zeros(256, bool)
        wanted[list(chosen) or slice(0, 255)] = True
        cells = [wanted[labels_to_grid(labels, grid)] for labels in features.labels]
        self.places = np.argwhere(np.stack(cells))
        if not len(self.places):
            raise DataError('no cell has a label of the chosen classes: nothing to refer to')
        self._order = np.random.default_rng(seed).permutation(len(self.places))

    def __len__(self) -> int:
        return len(self.places)

    def first(self, count: int) -> Float16Array:
        """Return float16 (min(count, all), D): the first of the drawn order; 0 = all."""
        order = self._order[:count] if count else self._order
        places = self.places[order]
        result = np.empty((len(order), self.tokens.shape[-1]), np.float16)
        for image in np.unique(places[:, 0]):
            mine = places[:, 0] == image
            result[mine] = self.tokens[int(image)][places[mine, 1], places[mine, 2]]
        return result


def fit_knn(
    features: FeatureSet,
    classifier: Classifier,
    classes: Sequence[str],
    config: KnnConfig,
    logits: Logits,
    *,
    heads: int = 1,
    chosen: Sequence[str] = (),
    coreset: Float16Array | None = None,
) -> KnnModel:
    """
    Draw references and measure the normalisers on known images.

    features: of config.feature and the classifier's layers. heads: of the backbone's attention.
    chosen: classes whose features are drawn (default: all). coreset: float16 (N, D), taken in
    place of drawn references. logits: tokens of the classifier's layers -> upsampled logits, as
    they are served.
    """
    ids = [classes.index(name) for name in chosen]
    known = LabelledFeatures(features, config.feature, ids, config.seed)
    references = known.first(config.references) if coreset is None else coreset
    heads = heads if config.head_split else 1
    sample = known.first(config.normaliser_features)
    nearest = mean_distances(sample, sample, config.k, heads, others=True)
    low, high = parametric_range(features, classifier.layers, logits)
    return KnnModel(
        tuple(classes), config.feature, heads, references, config.k, classifier.eval(),
        low, high, float(nearest.max()), config.upsample,
        {
            'features': len(known),
            'references': len(references),
            'coreset': config.coreset,
            'logsumexp_range': [low, high],
            'farthest': float(nearest.max()),
            'median_distance': float(np.median(nearest)),
        },
    )  # fmt: skip


@torch.inference_mode()
def parametric_range(
    features: FeatureSet, layers: Sequence[str], logits: Logits
) -> tuple[float, float]:
    """Return the least and greatest 1 - logsumexp over the labelled pixels of all images."""
    low, high = np.inf, -np.inf
    for i in progress_bar(range(len(features.names)), 'normaliser'):
        score = parametric_score(logits(*tokens_of(features, layers, [i])))[0].numpy()
        known = score[labels_to_grid(np.asarray(features.labels[i]), score.shape) != 255]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if not high > low:
        raise DataError(f'1 - logsumexp ranges from {low:g} to {high:g}: refit the classifier')
    return low, high


def save_knn(model: KnnModel, folder: Path) -> None:
    """Write a model into a folder."""
    save_classifier(folder / CLASSIFIER_FILE, model.classifier)
    apart = ('references', 'classifier')
    names = [field.name for field in fields(model) if field.name not in apart]
    values = np.array(json.dumps({name: getattr(model, name) for name in names}))
    write_npz(folder / MODEL_FILE, {'references': model.references, 'values': values})


def load_knn(folder: Path) -> KnnModel:
    """Read what save_knn wrote; DataError where it is something else."""
    path = folder / MODEL_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            references, values = arrays['references'], json.loads(arrays['values'].item())
        values['classes'] = tuple(values['classes'])
        return KnnModel(
            references=references, classifier=load_classifier(folder / CLASSIFIER_FILE), **values
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'{path} is no nearest-neighbour model: {error}') from error
