# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What adaptation gives on cameras that a bundle has seen once: rates, what is found, drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ood_perception.adapt.blocks import stretches
from ood_perception.adapt.curves import RATES, Cleaned, all_pixels, cleaned
from ood_perception.adapt.gaussian import GaussianHead
from ood_perception.adapt.levels import (
    Level,
    Pasted,
    measured,
    taken,
)
from ood_perception.adapt.observe import SeenFrame
from ood_perception.demo.sources import spread
from ood_perception.metrics.bootstrap import image_histograms, metric_intervals, paired_difference
from ood_perception.metrics.pixel import exact_metrics
from ood_perception.postprocess.drift import BLOCK_FRAMES, BULK, CalibrationTest, blocks_between
from ood_perception.types import BoolArray, Float64Array, JsonDict

TARGET = RATES[0]
CONTAMINATED = (0.0, 0.01, 0.05, 0.2)  # fractions of frames that hold objects
_RUNS, _FRAMES = 20, 10_000


@dataclass(frozen=True)
class Camera:
    """
    One camera as one bundle sees it.

    frames: in recorded order. pasted: some of them with objects. labelled: those with labels of
    anomalies.
    """

    name: str
    frames: Sequence[SeenFrame]
    pasted: Sequence[Pasted] = ()
    labelled: Sequence[Pasted] = ()

    def without_anomalies(self) -> Camera:
        """Return the camera with clean frames: cells of labelled anomalies are no ground."""
        odd = {one.place: one.frame.cells[one.found] for one in self.labelled}

        def kept(frame: SeenFrame, place: int) -> BoolArray:
            return ~np.isin(frame.cells, odd.get(place, ()))

        frames = [frame.only(kept(frame, place)) for place, frame in enumerate(self.frames)]
        pasted = []
        for one in self.pasted:
            keep = kept(one.frame, one.place)
            pasted.append(replace(one, frame=one.frame.only(keep), found=one.found[keep]))
        return replace(self, frames=frames, pasted=pasted)


@dataclass(frozen=True)
class Parent:
    """A bundle to adapt: its head's classes, those that count as normal, its Gaussian if any."""

    name: str
    classes: tuple[str, ...]
    chosen: tuple[str, ...]
    head: GaussianHead | None

    def raw(self, frame: SeenFrame) -> npt.NDArray[np.float32]:
        """Return the frame's surprisal before any calibration of the class set, float32 (N,)."""
        return all_pixels([frame], self.classes).served(self.chosen).astype(np.float32)


def rates_of(parent: Parent, camera: Camera, count: int, contamination: float) -> JsonDict:
    """
    Return what each level gives that `count` frames fit, on all of the camera's frames.

    Each fifth of the recording is measured with what the frames outside it fitted.
    """
    fitted = _mask(len(camera.frames), spread(len(camera.frames), count))
    clean = cleaned(camera.frames, contamination, fitted)
    known = [*camera.pasted, *camera.labelled]
    own = stretches(len(camera.frames))
    levels = measured(clean, known, own, parent.classes, parent.chosen, parent.head)
    many = len(camera.pasted)
    level, facts = taken([replace(one, images=one.images[:many]) for one in levels], 'auto')
    if camera.labelled:
        labelled = [replace(one, images=one.images[many:]) for one in levels]
        for one in labelled:
            facts[one.name]['labelled'] = _found(one, labelled[0])
    return {
        'parent': parent.name,
        'camera': camera.name,
        'frames': int(fitted.sum()),
        'measured_on': len(camera.frames),
        'level': level.name,
        'levels': facts,
    }


def _mask(size: int, places: Sequence[int]) -> BoolArray:
    chosen = np.zeros(size, bool)
    chosen[list(places)] = True
    return chosen


def _found(level: Level, curves: Level) -> JsonDict:
    """Return AP and FPR95 in percent, with 95 % intervals over images, AP also against curves."""
    metrics, histograms = exact_metrics(level.images), image_histograms(level.images)
    intervals = metric_intervals(histograms)
    found: JsonDict = {}
    for name in ('average_precision', 'fpr95'):
        values = (getattr(metrics, name), intervals[name].low, intervals[name].high)
        found[name] = [round(100 * float(value), 2) for value in values]
    if level is not curves:
        gain = paired_difference(histograms, image_histograms(curves.images))['average_precision']
        found['gain'] = [round(100 * gain.low, 2), round(100 * gain.high, 2)]
    return found


def contamination_of(
    parent: Parent, camera: Camera, count: int, contamination: float
) -> list[JsonDict]:
    """
    Return what is still found of objects where some of the frames that adapt hold such objects.

    `count` frames adapt by curves, those with pasted objects among them; of a fraction of them
    (CONTAMINATED) the pasted image is taken. Their pixels count as ground, the worst case.
    """
    places = [one.place for one in camera.pasted]
    others = [k for k in range(len(camera.frames)) if k not in set(places)]
    kept = [others[k] for k in spread(len(others), max(count - len(places), 0))]
    fitted = sorted([*places, *kept])
    own = stretches(len(camera.frames))[fitted]
    rows = []
    for fraction in CONTAMINATED if places else ():
        odd = min(math.ceil(fraction * len(fitted)), len(places))
        twins = {camera.pasted[k].place: camera.pasted[k].frame for k in spread(len(places), odd)}
        fit = cleaned([twins.get(k, camera.frames[k]) for k in fitted], contamination)
        objects = {one.place: one.frame.only(one.found) for one in camera.pasted}
        bare = [camera.frames[k].only(np.zeros(len(camera.frames[k].cells), bool)) for k in fitted]
        seen = [objects.get(k, none) for k, none in zip(fitted, bare, strict=True)]
        found = _curves(parent, replace(fit, frames=tuple(seen)), own)
        ground = cleaned([camera.frames[k] for k in fitted], contamination).frames
        flagged = _curves(parent, replace(fit, frames=ground), own)
        rows.append(
            {
                'parent': parent.name,
                'camera': camera.name,
                'frames': len(fitted),
                'with_objects': odd,
                'objects_found': found.rates[0].observed,
                'before': found.rates[0].before,
                'rates': [rate.to_json() for rate in flagged.rates],
            }
        )
    return rows


def _curves(parent: Parent, clean: Cleaned, own: npt.NDArray[np.int64]) -> Level:
    return measured(clean, [], own, parent.classes, parent.chosen, None)[0]


def drift_of(parent: Parent, cameras: Sequence[Camera], contamination: float) -> list[JsonDict]:
    """
    Return when the drift test warns: of the parent, and adapted (curves) to each of the cameras.

    A pair gives the flagged fraction at TARGET; the frames to a warning, the median of _RUNS draws
    of blocks of consecutive frames, None where most see none in _FRAMES; how many draws warn; and
    whether the recording itself does, in its own order. An adapted bundle meets its own camera on
    the stretches that it was not fitted on.
    """
    rows = []
    for home in (None, *cameras):
        for camera in cameras:
            counts = _counts(parent, home, camera, contamination)
            last = max(len(counts) - BLOCK_FRAMES, 0)
            draws = np.random.default_rng(0).integers(
                0, last + 1, (_RUNS, _FRAMES // BLOCK_FRAMES)
            )
            waits = [_wait(_blocks(counts, starts)) for starts in draws]
            warned = [wait for wait in waits if wait is not None]
            median = float(np.median([_FRAMES if wait is None else wait for wait in waits]))
            rows.append(
                {
                    'parent': parent.name,
                    'adapted_to': home.name if home else '',
                    'camera': camera.name,
                    'flagged': float(counts[:, 0].sum() / counts[:, 2].sum()),
                    'frames_to_warning': None if median >= _FRAMES else int(median),
                    'runs_with_warning': len(warned),
                    'runs': _RUNS,
                    'recording_warns': _wait(_blocks(counts, range(0, last + 1, BLOCK_FRAMES)))
                    is not None,
                }
            )
    return rows


def _counts(
    parent: Parent, home: Camera | None, camera: Camera, contamination: float
) -> Float64Array:
    """Return float64 (n, 3) of each frame: flagged, of a p-value of at most BULK, all pixels."""
    fit = cleaned(home.frames, contamination) if home else None
    own = stretches(len(home.frames)) if home else np.zeros(0, np.int64)
    parts = own if home is camera else np.full(len(camera.frames), -1)
    curves = {}
    if fit is not None:
        for part in np.unique(parts).tolist():
            others = [one for one, k in zip(fit.trimmed, own, strict=True) if k != part]
            curves[part] = all_pixels(others, parent.classes).calibration(parent.chosen)
    rows = []
    for part, frame in zip(parts.tolist(), camera.frames, strict=True):
        values = curves[part](parent.raw(frame)) if curves else frame.served.astype(np.float32)
        alarms = [int((values >= -np.log10(rate)).sum()) for rate in (TARGET, BULK)]
        rows.append([*alarms, len(values)])
    return np.array(rows, np.float64)[[len(frame.cells) > 0 for frame in camera.frames]]


def _blocks(counts: Float64Array, starts: npt.ArrayLike) -> Float64Array:
    """Return float64 (n, 2), the fractions of blocks of consecutive frames."""
    places = np.asarray(starts)
    total = np.concatenate([np.zeros((1, 3)), counts.cumsum(0)])
    sums = total[np.minimum(places + BLOCK_FRAMES, len(counts))] - total[places]
    return np.asarray(sums[:, :2] / sums[:, 2:])


def _wait(blocks: Float64Array) -> int | None:
    """Return the frames until the test warns, None where it does not."""
    test = CalibrationTest(TARGET)
    for number, block in enumerate(blocks, start=1):
        test.add(block.tolist())
        if test.stake >= blocks_between():
            return number * BLOCK_FRAMES
    return None
