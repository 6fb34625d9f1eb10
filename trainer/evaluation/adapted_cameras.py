# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What adaptation gives on cameras that a bundle has seen once: rates, what is found, drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ood_perception.adapt.blocks import stretches
from ood_perception.adapt.curves import RATES, Normal, cleaned
from ood_perception.adapt.gaussian import GaussianHead, gaussian_head
from ood_perception.adapt.levels import Level, Pasted, better, measured, taken
from ood_perception.adapt.observe import SeenFrame
from ood_perception.demo.sources import spread
from ood_perception.loader import Model
from ood_perception.metrics.bootstrap import image_histograms, metric_intervals
from ood_perception.metrics.pixel import exact_metrics
from ood_perception.postprocess.calibration import ClassSetCalibration
from ood_perception.postprocess.drift import BLOCK_FRAMES, BULK, CalibrationTest, blocks_between
from ood_perception.types import BoolArray, Float64Array, Int64Array, JsonDict

TARGET = RATES[0]
# of so many frames, or all there are, such fractions hold objects
CONTAMINATED_FRAMES, CONTAMINATED = 100, (0.0, 0.01, 0.05, 0.2)
OBJECTS = 20  # frames that are seen with objects, too: the largest fraction
_RUNS, _FRAMES = 20, 10_000
_LEVELS = -np.log10([*RATES, BULK])


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

    def without_tokens(self) -> Camera:
        """Return what curves alone need of the camera."""
        return Camera(self.name, [replace(frame, tokens=None) for frame in self.frames])


@dataclass(frozen=True)
class Parent:
    """A bundle to adapt: its name, its classes, its Gaussian if it has one."""

    name: str
    normal: Normal
    head: GaussianHead | None

    @classmethod
    def of(cls, model: Model) -> Parent:
        """Return a model's."""
        name = model.bundle.manifest.name
        return cls(name, Normal.of(model), gaussian_head(model.bundle, model.head))


def rates_of(parent: Parent, camera: Camera, count: int, contamination: float) -> JsonDict:
    """
    Return what each level gives that `count` frames fit, on all of the camera's frames.

    Each fifth of the recording is measured with what the frames outside it fitted.
    """
    fitted = np.isin(np.arange(len(camera.frames)), spread(len(camera.frames), count))
    clean = cleaned(camera.frames, contamination, fitted)
    known = [*camera.pasted, *camera.labelled]
    own = stretches(len(camera.frames))
    levels = measured(clean, known, own, parent.normal, parent.head)
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


def _found(level: Level, curves: Level) -> JsonDict:
    """Return AP and FPR95 in percent, with 95 % intervals over images, AP also against curves."""
    metrics = exact_metrics(level.images)
    intervals = metric_intervals(image_histograms(level.images))
    found: JsonDict = {}
    for name in ('average_precision', 'fpr95'):
        values = (getattr(metrics, name), intervals[name].low, intervals[name].high)
        found[name] = [round(100 * float(value), 2) for value in values]
    if level is not curves:
        gain = better(level, curves)
        found['gain'] = [round(gain.low, 2), round(gain.high, 2)]
    return found


def contamination_of(parent: Parent, camera: Camera, contamination: float) -> list[JsonDict]:
    """
    Return what is still found of objects where some of the frames that adapt hold such objects.

    CONTAMINATED_FRAMES adapt by curves, those with pasted objects among them; of a fraction of
    them the pasted image is taken. Its pixels count as ground, the worst case.
    """
    pasted = {one.place: one for one in camera.pasted}
    others = [k for k in range(len(camera.frames)) if k not in pasted]
    room = max(CONTAMINATED_FRAMES - len(pasted), 0)
    fitted = sorted([*pasted, *(others[k] for k in spread(len(others), room))])
    own, normal = stretches(len(camera.frames))[fitted], parent.normal
    ground = cleaned([camera.frames[k] for k in fitted], contamination).frames
    objects = [one.frame.only(one.found) for one in pasted.values()]
    held = stretches(len(camera.frames))[list(pasted)]
    counts = {min(math.ceil(part * len(fitted)), len(pasted)) for part in CONTAMINATED}
    rows = []
    for odd in sorted(counts) if pasted else ():
        twins = {camera.pasted[k].place for k in spread(len(pasted), odd)}
        mixed = [pasted[k].frame if k in twins else camera.frames[k] for k in fitted]
        curves = normal.curves(cleaned(mixed, contamination).trimmed, own)
        rows.append(
            {
                'parent': parent.name,
                'camera': camera.name,
                'frames': len(fitted),
                'with_objects': odd,
                'objects_found': _fractions(_counts(normal, objects, curves, held))[0],
                'before': _fractions(_counts(normal, objects, {}, held))[0],
                'flagged': _fractions(_counts(normal, ground, curves, own))[0],
            }
        )
    return rows


def drift_of(parent: Parent, cameras: Sequence[Camera], contamination: float) -> list[JsonDict]:
    """
    Return when the drift test warns: of the parent, and adapted (curves) to each of the cameras.

    A pair gives the fractions flagged at RATES; the frames to a warning, the median of _RUNS draws
    of blocks of consecutive frames, None where most see none in _FRAMES; how many draws warn; and
    whether the recording itself does, in its own order. An adapted bundle meets its own camera on
    the stretches that it was not fitted on.
    """
    rows = []
    for home in (None, *cameras):
        curves = _own_curves(parent.normal, home, contamination) if home else {}
        for camera in cameras:
            own, every = stretches(len(camera.frames)), np.full(len(camera.frames), -1)
            parts = own if home is camera else every
            counts = _counts(parent.normal, camera.frames, curves, parts)
            rows.append(
                {
                    'parent': parent.name,
                    'adapted_to': home.name if home else '',
                    'camera': camera.name,
                    'flagged': _fractions(counts)[: len(RATES)],
                    **_warnings(counts[:, [0, -2, -1]]),
                }
            )
    return rows


def _own_curves(
    normal: Normal, home: Camera, contamination: float
) -> dict[int, ClassSetCalibration]:
    return normal.curves(cleaned(home.frames, contamination).trimmed, stretches(len(home.frames)))


def _warnings(counts: Float64Array) -> JsonDict:
    """Return when the test warns; counts: float64 (n, 3), flagged, of the bulk, all pixels."""
    last = max(len(counts) - BLOCK_FRAMES, 0)
    shape = (_RUNS, _FRAMES // BLOCK_FRAMES)
    draws = np.random.default_rng(0).integers(0, last + 1, shape)
    waits = [_wait(_blocks(counts, starts)) for starts in draws]
    median = float(np.median([_FRAMES if wait is None else wait for wait in waits]))
    own = _wait(_blocks(counts, range(0, last + 1, BLOCK_FRAMES)))
    return {
        'frames_to_warning': None if median >= _FRAMES else int(median),
        'runs_with_warning': sum(wait is not None for wait in waits),
        'runs': _RUNS,
        'recording_warns': own is not None,
    }


def _counts(
    normal: Normal,
    frames: Sequence[SeenFrame],
    curves: Mapping[int, ClassSetCalibration],
    parts: Int64Array,
) -> Float64Array:
    """
    Return float64 (n, 5) of each frame with ground: what is flagged at RATES and BULK, all pixels.

    curves: by part, see Normal.curves; empty: as the parent flags. parts: of every frame.
    """
    rows = []
    for part, frame in zip(parts.tolist(), frames, strict=True):
        if len(frame.cells):
            values = curves[part](normal.raw(frame)) if curves else frame.served
            rows.append([*(values >= _LEVELS[:, None]).sum(1), len(values)])
    return np.array(rows, np.float64).reshape(-1, len(_LEVELS) + 1)


def _fractions(counts: Float64Array) -> list[float]:
    """Return what is flagged of all pixels at RATES and BULK; counts: see _counts."""
    total = counts.sum(0)
    return [float(one) for one in total[:-1] / max(total[-1], 1)]


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
