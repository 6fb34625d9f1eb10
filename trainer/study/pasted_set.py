# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The set that hyperparameters are chosen on: held-out roads with objects pasted on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ood_perception.files import make_file

from ..augment.cutouts import PasteSettings
from ..augment.outlier_sources import load_outliers
from ..data.images import IGNORED
from ..datasets.pasted import read_ground, write_pasted_set
from ..recipe import Recipe
from ..workflow import Workflow

PASTED = 'pasted'


def pasted_set(recipe: Recipe, folder: Path) -> str:
    """
    Write (or find) the set of a recipe into folder/pasted; return its address for open_set.

    The pictures are those of the training split that only choose (data.selection_fraction), the
    objects the half of the recipe's outliers that no training sees; they stand on the bundle's
    ground classes. These alone, by their true labels, are scored, with what stands on them.
    """
    data = Workflow(recipe, folder).data
    pictures = data.pictures.subset(data.split[1])
    objects = load_outliers(recipe.outliers, 'selection', data.root)
    ground = [data.class_names.index(name) for name in recipe.bundle.ground_classes]
    place = folder / PASTED
    settings = PasteSettings(ground=tuple(ground))
    for path in write_pasted_set(pictures, objects, place, settings, recipe.seed).labels:
        _score_the_ground(path)
    return f'{PASTED}={place}'


def _score_the_ground(path: Path) -> None:
    """Let the labels of one picture ignore all but the ground and what stands on it."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    scored = np.where(read_ground(path), labels, np.uint8(IGNORED))
    if not np.array_equal(scored, labels):
        content = cv2.imencode('.png', scored)[1].tobytes()
        make_file(path, lambda partial: partial.write_bytes(content) and None)
