# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which patch belongs to which class (PixOOD, section III-B), and the tokens of each class."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError, DataError
from ood_perception.files import cache_root
from ood_perception.types import UInt8Array

from ..feature_files import release
from ..features import FeatureSet

IGNORED = 255
_IN_MEMORY = 64 << 20
_ROWS = 20_000  # at a time
_LEAST_SHARE = 1e-3  # a dimension that hardly varies must not reach float16's end, nor decide


@dataclass(frozen=True)
class PatchSettings:
    """
    When a patch carries its class's label, and when a class has a model of its own.

    purity: least share of the patch's pixels with the label, inclusive, in (0.5, 1].
    fallback_purity: for a class with too few pure patches; the share must exceed it.
    fewest_patches, fewest_images: what a class needs for a model of its own.
    """

    purity: float = 0.9
    fallback_purity: float = 0.5
    fewest_patches: int = 200
    fewest_images: int = 20

    def __post_init__(self) -> None:
        for name in ('purity', 'fallback_purity'):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ConfigError(f'{name} is {value}: give a share in (0, 1]')


@dataclass(frozen=True)
class ClassCount:
    """
    What one class offers.

    pure, pure_images: patches at `purity` and the images that hold them.
    loose, loose_images: the same at `fallback_purity`.
    choice: 'pure', 'loose' or 'none' (no model of its own).
    """

    name: str
    pure: int
    pure_images: int
    loose: int
    loose_images: int
    choice: str


@dataclass(frozen=True)
class PatchSelection:
    """
    The labelled patches of a feature set.

    labels: uint8 (n, gh, gw), class id, 255 = not used.
    counts: one ClassCount a class.
    settings: what was asked of a class.
    """

    labels: UInt8Array
    counts: tuple[ClassCount, ...]
    settings: PatchSettings

    def report(self) -> str:
        """Return the counts as lines of text."""
        asked = self.settings
        choices = {
            'pure': 'fitted on the pure ones',
            'loose': 'too few pure: fitted on those over half',
            'none': 'too few: no model of its own, which takes '
            f'{asked.fewest_patches} in {asked.fewest_images} images',
        }
        return '\n'.join(
            f'{c.name:>14}: {c.pure} pure patches in {c.pure_images} images, {c.loose} over '
            f'half in {c.loose_images}: {choices[c.choice]}'
            for c in self.counts
        )


@dataclass(frozen=True)
class ClassTokens:
    """
    The tokens of one class, sorted by image.

    tokens: float16 (N, D).
    starts: int64 (n + 1,): image i holds tokens[starts[i]:starts[i + 1]].
    """

    tokens: npt.NDArray[np.float16]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def of_images(self, images: Sequence[int]) -> npt.NDArray[np.float16]:
        """Return float16 (m, D): the tokens of these images, in their order."""
        parts = [self.tokens[self.starts[i] : self.starts[i + 1]] for i in images]
        found = np.concatenate(parts) if parts else self.tokens[:0]
        release(self.tokens)
        return found


def patch_labels(
    labels: UInt8Array, patch: int, class_count: int
) -> tuple[UInt8Array, npt.NDArray[np.float32]]:
    """
    Return the commonest label of every patch and its share of the pixels.

    labels: uint8 (h, w), ids below class_count or 255, which competes like a class; h and w are
    multiples of patch. Returns uint8 (gh, gw) (equal shares: the smallest value) and float32
    (gh, gw) in (0, 1]. Raises DataError for an id that no class has.
    """
    height, width = labels.shape
    blocks = labels.reshape(height // patch, patch, width // patch, patch)
    best = np.full((height // patch, width // patch), IGNORED, np.uint8)
    most = np.zeros(best.shape, np.int64)
    counted = 0
    for value in [*range(class_count), IGNORED]:
        count = (blocks == value).sum(axis=(1, 3))
        best[count > most] = value
        most = np.maximum(most, count)
        counted += int(count.sum())
    if counted != labels.size:
        unknown = sorted(set(np.unique(labels).tolist()) - {*range(class_count), IGNORED})
        raise DataError(
            f'label ids {unknown} belong to no class of 0..{class_count - 1} and are not 255: '
            'map them in the class map'
        )
    return best, (most / patch**2).astype(np.float32)


def select_patches(
    features: FeatureSet, class_names: Sequence[str], settings: PatchSettings | None = None
) -> PatchSelection:
    """Label every patch and decide which classes get a model; labels as patch_labels."""
    settings = settings or PatchSettings()
    pairs = [patch_labels(image, features.patch, len(class_names)) for image in features.labels]
    release(features.labels)
    best = np.stack([pair[0] for pair in pairs])
    share = np.stack([pair[1] for pair in pairs])
    chosen = np.full(best.shape, IGNORED, np.uint8)
    counts = []
    for index, name in enumerate(class_names):
        pure = (best == index) & (share >= settings.purity)
        loose = (best == index) & (share > settings.fallback_purity)
        count = _count(name, pure, loose, settings)
        counts.append(count)
        if count.choice != 'none':
            chosen[pure if count.choice == 'pure' else loose] = index
    return PatchSelection(chosen, tuple(counts), settings)


def gather_tokens(
    features: FeatureSet, layer: str, selection: PatchSelection
) -> tuple[ClassTokens, ...]:
    """
    Return the selected tokens of every class, read in one pass over the images.

    2 D bytes a selected patch: in memory, or where a class has more than 64 MiB, in a file of the
    cache that goes when they do. A class without a model has none.
    """
    tokens = features.tokens[layer]
    dim = tokens.shape[-1]
    classes = range(len(selection.counts))
    totals = [np.array([(image == c).sum() for image in selection.labels]) for c in classes]
    starts = [np.concatenate([[0], np.cumsum(total)]).astype(np.int64) for total in totals]
    gathered = [_room(int(start[-1]), dim) for start in starts]
    for i, labels in enumerate(selection.labels):
        frame = np.asarray(tokens[i])
        for c in np.unique(labels[labels != IGNORED]):
            gathered[c][starts[c][i] : starts[c][i + 1]] = frame[labels == c]
        for mapped in (tokens, *gathered):
            release(mapped)
    return tuple(ClassTokens(g, s) for g, s in zip(gathered, starts, strict=True))


def deviations(tokens: Sequence[ClassTokens]) -> npt.NDArray[np.float32]:
    """
    Return the standard deviation of each dimension over all patches, float32 (D,) > 0.

    At least a thousandth of the largest one. Raises DataError where there are no patches.
    """
    if not any(len(one) for one in tokens):
        raise DataError('no class has enough patches: there is nothing to standardise by')
    count, total, squares = 0, np.float64(0), np.float64(0)
    for one in tokens:
        for start in range(0, len(one), _ROWS):
            part = one.tokens[start : start + _ROWS].astype(np.float64)
            count, total, squares = (
                count + len(part),
                total + part.sum(0),
                squares + (part**2).sum(0),
            )
            release(one.tokens)
    found = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
    return np.maximum(found, _LEAST_SHARE * found.max() or 1.0).astype(np.float32)


def divide(tokens: Sequence[ClassTokens], scale: npt.NDArray[np.float32]) -> None:
    """Divide gathered tokens, each dimension by its own of scale (D,), in their place."""
    for one in tokens:
        for start in range(0, len(one), _ROWS):
            one.tokens[start : start + _ROWS] /= scale
            release(one.tokens)


def _room(rows: int, dim: int) -> npt.NDArray[np.float16]:
    """Return float16 (rows, dim) to be written: a large one lies in a file without a name."""
    if 2 * rows * dim <= _IN_MEMORY:
        return np.empty((rows, dim), np.float16)
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_root()) as file:  # it lives as long as its map
        return np.memmap(file, np.float16, 'w+', shape=(rows, dim))


def _count(
    name: str, pure: npt.NDArray[np.bool_], loose: npt.NDArray[np.bool_], settings: PatchSettings
) -> ClassCount:
    numbers = [int(pure.sum()), _images(pure), int(loose.sum()), _images(loose)]
    choice = 'none'
    if _enough(*numbers[:2], settings):
        choice = 'pure'
    elif _enough(*numbers[2:], settings):
        choice = 'loose'
    return ClassCount(name, *numbers, choice)


def _images(chosen: npt.NDArray[np.bool_]) -> int:
    return int(chosen.any(axis=(1, 2)).sum())


def _enough(patches: int, images: int, settings: PatchSettings) -> bool:
    return patches >= settings.fewest_patches and images >= settings.fewest_images
