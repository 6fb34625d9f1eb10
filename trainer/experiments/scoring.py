# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From tokens to one surprisal map a picture, for the head and for its ingredients alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import ConfigError, DataError
from ood_perception.geometry import Geometry, geometry_for, to_camera, to_camera_nearest
from ood_perception.metrics.pixel import ScoredPicture, scored_picture
from ood_perception.roi import class_table, ground_hull

from ..data import PictureList
from ..features import FeatureSet
from ..heads.knn import KnnHead
from ..heads.pixood_module import PixOODHead
from .rows import Row

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Score = Callable[..., torch.Tensor]
Region = Callable[[int], BoolArray | None]


def score_of(row: Row, head: PixOODHead) -> Score:
    """
    Return the row's score: tokens float (1, gh, gw, D) per layer -> float32 (1, gh*f, gw*f).

    head: of the row's fit and factor. Higher = stranger; the ingredients are not calibrated.
    """
    if row.score == 'pixood':
        chosen = torch.ones(len(head.compiled_classes))
        return lambda *tokens: head(*tokens, chosen)[0]
    if row.score == 'distance':
        return lambda *tokens: torch.stack(head.nearest(tokens[-1].float())).amin(0)
    places = [_place(head, name) for name in row.classes or head.known_classes]
    if row.score == 'max_logit':
        return lambda *tokens: -head.upsampled_logits(*tokens)[..., places].amax(3)
    return lambda *tokens: _surprisal_of_softmax(head.upsampled_logits(*tokens), places)


def _place(head: PixOODHead | KnnHead, name: str) -> int:
    if name not in head.known_classes:
        raise ConfigError(f'unknown class {name!r}; known are {list(head.known_classes)}')
    return head.known_classes.index(name)


def _surprisal_of_softmax(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return -log p of the likeliest chosen class: ranks as 1 - p, but never saturates."""
    return torch.logsumexp(logits, 3) - logits[..., places].amax(3)


@torch.inference_mode()
def score_maps(score: Score, features: FeatureSet, layers: Sequence[str]) -> Iterator[FloatArray]:
    """Yield float32 (gh*f, gw*f) per picture of a feature set."""
    for index in range(len(features.names)):
        yield score(*picture_tokens(features, layers, index))[0].float().numpy()


def picture_tokens(
    features: FeatureSet, layers: Sequence[str], index: int
) -> tuple[torch.Tensor, ...]:
    """Return float32 (1, gh, gw, D) per layer of one picture."""
    return tuple(
        torch.from_numpy(np.array(features.tokens[layer][index : index + 1])).float()
        for layer in layers
    )


def scored_pictures(
    pictures: PictureList,
    features: FeatureSet,
    maps: Iterator[FloatArray],
    regions: Mapping[str, Region],
) -> dict[str, list[ScoredPicture]]:
    """
    Bring every map to label size and split it by the labels, once per region.

    pictures: an anomaly set. features: of the same pictures, with policy 'stretch'.
    regions: name -> picture index -> bool (H, W) to score, or None for all.
    """
    sizes = (stretched(pictures.read(index)[1], features) for index in range(len(pictures)))
    pixels = (to_camera(grid, geometry) for grid, geometry in zip(maps, sizes, strict=True))
    return scored_pictures_of(pictures, pixels, regions)


def scored_pictures_of(
    pictures: PictureList, pixels: Iterable[FloatArray], regions: Mapping[str, Region]
) -> dict[str, list[ScoredPicture]]:
    """Split the maps float32 (H, W) of all pictures by the labels, once per region."""
    scored: dict[str, list[ScoredPicture]] = {name: [] for name in regions}
    for index, surprisal in enumerate(pixels):
        _, labels = pictures.read(index)
        for name, region in regions.items():
            scored[name].append(scored_picture(surprisal, labels, region(index)))
    return scored


def stretched(labels: npt.NDArray[np.uint8], features: FeatureSet) -> Geometry:
    """Return the geometry of a picture that was stretched to the features' size."""
    size = (int(labels.shape[0]), int(labels.shape[1]))
    return geometry_for(size, (features.height, features.width), 'stretch')


def write_ground_masks(
    folder: Path,
    pictures: PictureList,
    features: FeatureSet,
    head: PixOODHead | KnnHead,
    ground: Sequence[str],
) -> None:
    """
    Write one PNG a picture: the convex hull of its predicted ground, 255 inside, at label size.

    head: of the fixed reference model, whose labels are used. Existing files are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = class_table([_place(head, name) for name in ground])
    for index, name in enumerate(pictures.names):
        path = folder / f'{name}.png'
        if path.is_file():
            continue
        with torch.inference_mode():
            logits = head.upsampled_logits(*picture_tokens(features, head.layers, index))
        hull = ground_hull(table[logits[0].argmax(2).numpy()])
        _, labels = pictures.read(index)
        mask = to_camera_nearest(hull, stretched(labels, features))
        if not cv2.imwrite(str(path), mask.astype(np.uint8) * 255):
            raise DataError(f'{path} cannot be written; is the disk full?')


def read_mask(path: Path) -> BoolArray:
    """Read a region of interest, bool (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2:
        raise DataError(f'{path} is missing or no mask: delete its folder to have it made again')
    return pixels > 0


@torch.inference_mode()
def latency_ms(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the median wall time of a call in milliseconds, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
