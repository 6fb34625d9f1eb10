# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Whether what a camera shows fits the calibration: a sequential test, its false warnings bounded.

Every block of 10 s of a moving camera gives two fractions of the predicted ground: flagged, and
with a p-value of at most 0.1. Where the calibration fits, their means are at most the target and
0.1; up to twice as much is tolerated. Bets that they exceed that multiply as long as they win and
start again at 1 (an e-detector; Shin, Ramdas and Rinaldo, 2022): if blocks are independent draws,
at least as many go by before a false warning, on average, as the stake must grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np

from ood_perception.postprocess.image_statistics import (
    MEASURES,
    NEW_VIEW,
    ImageStatistics,
    difference,
    statistics_of,
)
from ood_perception.types import BoolArray, Detection, Float32Array, UInt8Array

BLOCK_SECONDS = 10.0
BLOCK_FRAMES = 5
TOLERANCE = 2.0
BULK = 0.1
LEAST_GROUND = 0.02
_STAKES = (0.05, 0.2, 0.5)  # of what a bet may lose: small ones win against noise
_CLEARED = 12  # good blocks in a row that take a warning back
_STEP, _JUDGED = 0.2, 1.0  # seconds between looks, and between reports
_WINDOW = 100
# of 8-bit images: below, nothing can be seen on them
_LEAST = {'brightness': 12.0, 'contrast': 6.0, 'sharpness': 2.0}
_CAUSES = {
    'brightness': 'the images are dark',
    'contrast': 'the images are flat: is the lens covered?',
    'sharpness': 'the images are blurred: is the lens wet, dirty or out of focus?',
}


def inner_ground(
    labels: UInt8Array, scored: BoolArray, normal: BoolArray, cells: int
) -> BoolArray:
    """
    Return the predicted ground, bool (gh, gw): scored, of a normal class, a patch inside its rim.

    A patch that is partly something else scores higher, and what the classifier takes for ground
    by mistake is mostly narrow. normal: bool (256,) by label. cells: score cells a patch is wide.
    """
    ground = scored & normal[labels]
    kernel = np.ones((2 * cells + 1, 2 * cells + 1), np.uint8)
    return np.asarray(cv2.erode(ground.view(np.uint8), kernel), bool)


class EDetector:
    """
    Bets against 'the mean of a fraction is at most `most`', in (0, 1).

    `stake` is the mean of the bets' capital, each at least 1 before every draw.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self._capital = np.ones(len(_STAKES))

    def add(self, value: float) -> None:
        """Take one draw in [0, 1]."""
        grown = 1 + np.array(_STAKES) * (value - self.most) / self.most
        self._capital = np.minimum(np.maximum(self._capital, 1.0) * grown, 1e300)

    @property
    def stake(self) -> float:
        """The mean capital."""
        return float(self._capital.mean())


class CalibrationTest:
    """Bets against 'twice the target at most is flagged, and twice 0.1 has a p-value of 0.1'."""

    def __init__(self, rate: float) -> None:
        """Rate: the target, a fraction."""
        self._bets = [EDetector(min(TOLERANCE * mean, 0.9)) for mean in (rate, BULK)]

    def add(self, shares: Sequence[float]) -> bool:
        """Take a block's two fractions, flagged first; return whether both are tolerated."""
        for bet, share in zip(self._bets, shares, strict=True):
            bet.add(share)
        return all(share <= bet.most for bet, share in zip(self._bets, shares, strict=True))

    @property
    def stake(self) -> float:
        """By how much the bets have grown, of `blocks_between` for a warning."""
        return float(np.mean([bet.stake for bet in self._bets]))


def blocks_between(false_warnings: float = 1.0) -> float:
    """Return how many blocks of a moving camera lie between so many false warnings a day."""
    return 24 * 3600 / BLOCK_SECONDS / false_warnings


@dataclass(frozen=True)
class CalibrationHealth:
    """warning: what does not fit, '' = nothing. values: to show."""

    warning: str = ''
    values: Mapping[str, str] = field(default_factory=dict)


class DriftMonitor:
    """
    Watches one camera; `add` per frame, by one thread, `health` by any.

    normal: label ids that count as normal. cells: score cells a patch is wide. known: the bundle's
    calibration facts; of an adapted bundle they hold what its camera's images are like.
    false_warnings: a day, at most, on average.
    """

    def __init__(
        self,
        normal: Sequence[int],
        cells: int,
        known: Mapping[str, Any] | None = None,
        false_warnings: float = 1.0,
    ) -> None:
        self._normal = np.zeros(256, bool)
        self._normal[list(normal)] = True
        self._cells = cells
        images = (known or {}).get('images')
        self._known = images if isinstance(images, Mapping) else {}
        self._needed = blocks_between(false_warnings)
        self._looks: deque[tuple[ImageStatistics, float]] = deque(maxlen=_WINDOW)
        self._block: list[tuple[int, int, int]] = []  # flagged, of the bulk, of the ground
        self._start = self._last = float('-inf')
        self._recent: deque[tuple[int, int]] = deque(maxlen=_WINDOW)
        self._blocks, self._good, self._since, self._rate = 0, 0, 0.0, 0.0
        self._judged_at = float('-inf')
        self._test = CalibrationTest(self._rate)
        self._view: Float32Array | None = None
        self.health = CalibrationHealth()

    def add(self, detection: Detection) -> None:
        """Take one frame's detection, by its stamp; an unmoved camera's frames count once."""
        now = detection.frame.stamp_ns / 1e9
        if abs(now - self._last) < _STEP:
            return
        if now < self._last or now - self._last > 2 * BLOCK_SECONDS:
            self._block = []  # a new recording, or a pause: the block would be none
        self._last = now
        ground = inner_ground(detection.labels, detection.scored, self._normal, self._cells)
        look = statistics_of(detection.frame.image)
        self._looks.append((look, float(ground.mean())))
        moved = self._view is None or difference(self._view, look.thumbnail) >= NEW_VIEW
        if moved and ground.any():
            self._view = look.thumbnail
            self._count(detection, ground, now)
        if abs(now - self._judged_at) >= _JUDGED:
            self._judged_at, self.health = now, self._judged()

    def _count(self, detection: Detection, ground: BoolArray, now: float) -> None:
        if detection.false_alarm_rate != self._rate:
            self._rate, self._blocks = detection.false_alarm_rate, 0
            self._test, self._block, self._since = CalibrationTest(self._rate), [], 0.0
        if not self._block:
            self._start = now
        surprisal = detection.surprisal[ground]
        flagged, bulk = (int((surprisal >= -np.log10(rate)).sum()) for rate in (self._rate, BULK))
        self._block.append((flagged, bulk, len(surprisal)))
        self._recent.append((flagged, len(surprisal)))
        if now - self._start >= BLOCK_SECONDS and len(self._block) >= BLOCK_FRAMES:
            # of all pixels alike, as the target is: a frame that shows little ground counts little
            *counts, pixels = np.sum(self._block, axis=0).tolist()
            self._close([count / pixels for count in counts])

    def _close(self, shares: list[float]) -> None:
        """Bet on a whole block; after enough good ones a warning is taken back."""
        self._good = self._good + 1 if self._test.add(shares) else 0
        self._blocks, self._block = self._blocks + 1, []
        if self.stake >= self._needed and not self._since:
            self._since = self._last
        if self._since and self._good >= _CLEARED:
            self._test, self._since = CalibrationTest(self._rate), 0.0

    @property
    def stake(self) -> float:
        """By how much the bets have grown, of `needed` for a warning."""
        return self._test.stake

    def _judged(self) -> CalibrationHealth:
        alarms, pixels = np.sum(self._recent, axis=0).tolist() if self._recent else (0, 1)
        flagged = alarms / pixels
        ground = float(np.median([one for _, one in self._looks])) if self._looks else 0.0
        looks = {
            name: float(np.median([getattr(look, name) for look, _ in self._looks]))
            for name in MEASURES
        }
        warning = self._image_cause(looks, ground)
        if not warning and self._since:
            warning = (
                f'calibration does not fit this camera: {flagged:.1%} flagged, {self._rate:.1%} '
                f'targeted, since {_clock(self._since)}; run adapt_bundle on a clean drive of it'
            )
        values = {
            'flagged': f'{flagged:.4f}',
            'target': f'{self._rate:g}',
            'ground': f'{ground:.3f}',
            'blocks': str(self._blocks),
            'evidence': f'{self.stake:.3g} of {self._needed:.0f}',
            **{name: f'{value:.1f}' for name, value in looks.items()},
        }
        return CalibrationHealth(warning, values)

    def _image_cause(self, looks: Mapping[str, float], ground: float) -> str:
        """Return what the images themselves show to be wrong, the most specific first."""
        if len(self._looks) < _WINDOW:
            return ''
        for name, least in _LEAST.items():
            own = self._known.get(name)  # of this camera's own clean images, where adapted to
            if looks[name] < (min(own[0] / 2, 2 * least) if own else least):
                return f'{_CAUSES[name]} ({name} {looks[name]:.1f})'
        if (usual := self._known.get('warmth')) and self._mirrored(looks['warmth'], *usual):
            return 'red and blue seem exchanged: check the encoding that the driver states'
        if ground < LEAST_GROUND:
            return f'hardly any ground is seen ({ground:.1%} of the image): check the mounting'
        return ''

    @staticmethod
    def _mirrored(warmth: float, low: float, usual: float, high: float) -> bool:
        outside = not low <= warmth <= high
        return outside and low <= -warmth <= high and abs(warmth - usual) > 10


def _clock(seconds: float) -> str:
    if seconds < 1e9:
        return f'{seconds:.0f} s'
    return datetime.fromtimestamp(seconds, timezone.utc).strftime('%Y-%m-%d %H:%M:%S UTC')
