# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What may be adapted, measured on stretches that were left out: curves, token statistics, a share.

Without labels a clean drive tells what is flagged of it, and nothing of what is found. So objects
are pasted on some of its frames: a level that changes the head is taken only where it finds them
better than the curves alone do, by two points of AP and more than chance, and where it keeps the
target on stretches that it has not seen: tokens of one stretch may be outliers of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ood_perception.adapt.blocks import Rate
from ood_perception.adapt.curves import Cleaned, Normal, left_out_rates
from ood_perception.adapt.gaussian import SHARE, GaussianHead, Moments, moments_of
from ood_perception.adapt.observe import Observer, SeenFrame, at_cells
from ood_perception.adapt.pasting import with_objects
from ood_perception.image.geometry import (
    IGNORED_LABEL,
    labels_to_grid,
    to_camera_nearest,
    to_network,
)
from ood_perception.metrics.bootstrap import Interval, image_histograms, paired_difference
from ood_perception.metrics.pixel import ScoredImage, exact_metrics, scored_image
from ood_perception.types import BoolArray, Frame, Int64Array, JsonDict, UInt8Array

CURVES, TOKENS, JOINED = 'curves', 'tokens', 'joined'
LEVELS = (CURVES, TOKENS, JOINED)
_FEWEST_TOKENS = 500
LEAST_GAIN = 2.0  # points of AP that a changed head must gain, at the interval's lower end


@dataclass(frozen=True)
class Pasted:
    """
    A frame with known anomalies: objects pasted on a clean one, or labelled ones.

    frame: what is seen in the cells of the clean one, or in the labelled cells of the
    region of interest. found: bool (N,),
    the anomalies' cells. place: of the clean frame in its drive.
    """

    frame: SeenFrame
    found: BoolArray
    place: int


@dataclass(frozen=True)
class Level:
    """
    One level, fitted without each stretch in turn.

    clean: the drive as it scores it. rates: see left_out_rates. images: the pasted frames'
    scores. moments: of the head that is fitted on all of the drive, None = the parent's head.
    """

    name: str
    clean: Cleaned
    rates: list[Rate]
    images: list[ScoredImage]
    moments: Moments | None = None

    @property
    def average_precision(self) -> float | None:
        """AP of the pasted objects in 0..100, None without any."""
        if not any(len(one.positives) for one in self.images):
            return None
        return 100 * float(exact_metrics(self.images).average_precision)


def paste(observer: Observer, image: Frame, seen: SeenFrame, place: int) -> Pasted | None:
    """Return a drive's frame with objects pasted on its ground, None where it has none."""
    ground = np.zeros(seen.grid, np.uint8)
    ground.flat[seen.cells] = 1
    geometry = seen.geometries[0]
    rng = np.random.default_rng(len(seen.cells))
    area = to_camera_nearest(ground, geometry) == 1
    photo, mask = with_objects(image.image, area, rng)
    found = _on_grid(mask.astype(np.uint8), seen)[seen.cells] == 1
    if not found.any():
        return None
    frame = observer.see(replace(image, image=photo), like=seen, tokens=True)
    return Pasted(frame, found, place)


def labelled(
    observer: Observer, image: Frame, seen: SeenFrame, labels: UInt8Array, place: int
) -> Pasted:
    """
    Return a drive's frame with its labels, in the region of interest.

    labels: uint8 (H, W), 0 normal, 1 anomaly, 255 ignored.
    """
    on_grid = _on_grid(labels, seen)
    cells = np.flatnonzero(on_grid != IGNORED_LABEL).astype(np.int32)
    truth = np.zeros(len(cells), np.uint8)  # no pixel of it calibrates
    frame = observer.see(image, like=replace(seen, cells=cells, truth=truth), tokens=True)
    return Pasted(frame.only(frame.scored), on_grid[cells][frame.scored] == 1, place)


def _on_grid(labels: UInt8Array, seen: SeenFrame) -> UInt8Array:
    """Return the flattened score grid's labels."""
    geometry = seen.geometries[0]
    return labels_to_grid(to_network(labels, geometry, labels=True), seen.grid).ravel()


def measured(
    clean: Cleaned,
    pasted: Sequence[Pasted],
    stretch: Int64Array,
    normal: Normal,
    head: GaussianHead | None,
) -> list[Level]:
    """Return the levels that the head has, curves first; stretch: of every frame."""
    levels = [_level(CURVES, clean, pasted, stretch, normal)]
    kept = [place for place, frame in enumerate(clean.trimmed) if frame.tokens is not None]
    if head is None or not kept:
        return levels
    tokens = {place: ground_tokens(clean.trimmed[place], head) for place in kept}
    parts = sorted(set(stretch[kept].tolist()))
    if len(parts) < 2 or sum(map(len, tokens.values())) < _FEWEST_TOKENS:
        return levels
    fits = {part: _moments(head, tokens, kept, stretch, part) for part in (*parts, -1)}
    for name in (TOKENS, JOINED):
        moments = {part: _changed(name, head, own) for part, own in fits.items()}
        frames = [scored(clean.frames[k], head, moments[int(stretch[k])]) for k in kept]
        trimmed = [
            frame.only(np.isin(frame.cells, clean.trimmed[k].cells, assume_unique=True))
            for k, frame in zip(kept, frames, strict=True)
        ]
        own = replace(clean, frames=tuple(frames), trimmed=tuple(trimmed))
        again = [
            replace(one, frame=scored(one.frame, head, moments[int(stretch[one.place])]))
            for one in pasted
            if int(stretch[one.place]) in moments
        ]
        level = _level(name, own, again, stretch[kept], normal)
        levels.append(replace(level, moments=moments[-1]))
    return levels


def better(level: Level, curves: Level) -> Interval:
    """Return the 95 % interval of the gain in AP on the pasted objects, in points."""
    first, second = (image_histograms(one.images) for one in (level, curves))
    gain = paired_difference(first, second)['average_precision']
    return Interval(100 * gain.low, 100 * gain.high, gain.undefined)


def taken(levels: Sequence[Level], wanted: str) -> tuple[Level, JsonDict]:
    """
    Return the level to take and what was measured of each.

    wanted: 'auto', or the name of a level that must be among them.
    """
    curves = levels[0]
    facts: JsonDict = {}
    best, gain = curves, LEAST_GAIN
    for level in levels:
        value = level.average_precision
        facts[level.name] = {
            'objects_average_precision': None if value is None else round(value, 2),
            'rates': [rate.to_json() for rate in level.rates],
        }
        if level is curves or value is None or len(level.images) != len(curves.images):
            continue
        interval = better(level, curves)
        facts[level.name]['gain'] = [round(interval.low, 2), round(interval.high, 2)]
        if interval.low > gain and _holds(level, curves):
            best, gain = level, interval.low
    by_name: Mapping[str, Level] = {level.name: level for level in levels}
    return by_name.get(wanted, best), facts


def _holds(level: Level, curves: Level) -> bool:
    """Return whether left-out stretches are flagged within twice the target, or as by curves."""
    pairs = zip(level.rates, curves.rates, strict=True)
    return all(one.observed <= max(2 * one.target, other.observed) for one, other in pairs)


def _level(
    name: str,
    clean: Cleaned,
    pasted: Sequence[Pasted],
    stretch: Int64Array,
    normal: Normal,
) -> Level:
    rates = left_out_rates(clean.trimmed, clean.frames, stretch, normal)
    images = [scored_image(normal.raw(one.frame), one.found.astype(np.uint8)) for one in pasted]
    return Level(name, clean, rates, images)


def ground_tokens(frame: SeenFrame, head: GaussianHead) -> npt.NDArray[np.float16]:
    """Return float16 (N, D), the whole image's tokens of patches all of whose cells are ground."""
    assert frame.tokens is not None
    whole = frame.tokens[0]
    ground = np.zeros(head.size, bool)
    ground.flat[frame.cells] = True
    rows, columns = whole.shape[:2]
    cells = ground.reshape(rows, head.size[0] // rows, columns, head.size[1] // columns)
    return np.asarray(whole[cells.all(axis=(1, 3))], np.float16)


def _moments(
    head: GaussianHead,
    tokens: Mapping[int, npt.NDArray[np.float16]],
    kept: Sequence[int],
    stretch: Int64Array,
    without: int,
) -> Moments:
    parts = [tokens[place] for place in kept if stretch[place] != without]
    return moments_of(np.concatenate(parts), head.shrinkage)


def _changed(name: str, head: GaussianHead, own: Moments) -> Moments:
    if name == TOKENS:
        return head.moments.standardised_by(own)
    return head.moments.joined(own, SHARE, head.shrinkage)


def scored(frame: SeenFrame, head: GaussianHead, moments: Moments) -> SeenFrame:
    """Return the frame as a head with other moments scores it."""
    assert frame.tokens is not None
    inside = np.zeros(head.size, bool)
    inside.flat[frame.cells] = True
    surprisal = head.surprisal(frame.tokens, moments)
    return replace(frame, surprisal=at_cells(surprisal, frame.geometries, inside))
