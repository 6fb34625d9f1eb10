# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Draw the held-out sample from which the runtime fits the table of any set of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.image.geometry import labels_to_grid
from ood_perception.image.views import on_grid
from ood_perception.postprocess.calibration import HeldOutSample
from ood_perception.postprocess.held_out import SIZE, Maps, StratifiedSample

from ..features import FeatureSet, tokens_of
from ..head_module import HeadModule
from ..progress import progress_bar


def sample_held_out(
    head: HeadModule,
    features: FeatureSet,
    classes: Sequence[str],
    *,
    views: Sequence[FeatureSet] = (),
    size: int = SIZE,
    seed: int = 0,
) -> HeldOutSample:
    """
    Run the calibrated head over held-out images; return the sample of its surprisal.

    classes: names by label id. Pixels of classes that the head does not hold are left out.
    views: the same images in the bundle's further views, which the sample tells apart.
    """
    sample = StratifiedSample(head.compiled_classes, size, seed)
    places = np.full(256, 255, np.uint8)
    for place, name in enumerate(head.compiled_classes):
        places[classes.index(name)] = place
    for surprisal, labels in surprisal_maps(head, features, views):
        sample.add(surprisal, places[labels])
    return sample.finish()


@torch.inference_mode()
def surprisal_maps(
    head: HeadModule, features: FeatureSet, views: Sequence[FeatureSet]
) -> Iterator[tuple[Maps, npt.NDArray[np.uint8]]]:
    """
    Yield an image's surprisal in each view and its true labels, on the whole image's grid.

    Float32 (V, S, gh*f, gw*f), -inf where a view does not hold the pixel, and uint8 (gh*f, gw*f).
    """
    every = torch.ones(len(head.compiled_classes))
    for i in progress_bar(range(len(features.names)), 'sets of classes'):
        whole = _maps(head, features, i, every)
        seen = [whole]
        for view in views:
            crops, geometry = _maps(head, view, i, every), view.geometries[i]
            placed = [on_grid(crop, geometry, features.geometries[i]) for crop in crops]
            seen.append(np.stack(placed))
        yield np.stack(seen), labels_to_grid(np.asarray(features.labels[i]), whole.shape[1:])


def _maps(head: HeadModule, features: FeatureSet, index: int, every: torch.Tensor) -> Maps:
    """Return the surprisal of one view of one image, float32 (S, gh*f, gw*f)."""
    least, _, *own = head.outputs(*tokens_of(features, head.layers, [index]), every)
    return torch.cat(own or [least]).numpy()
