# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The open-set label map: the most likely known class, or 'unknown' where the score says so."""

from __future__ import annotations

from collections.abc import Sequence

from ood_perception.errors import ConfigError
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.types import MASK_NOT_SCORED, Detection, UInt8Array

# Class ids end at 253, so that both values below are free in every bundle.
UNKNOWN = 254
NOT_SCORED = MASK_NOT_SCORED
UNKNOWN_NAME, NOT_SCORED_NAME = 'unknown', 'not scored'
OUTSIDE = ('not_scored', 'labels')


def open_set_cells(detection: Detection, outside: str = OUTSIDE[0]) -> UInt8Array:
    """
    Return the open-set labels on the score grid, uint8 (gh, gw).

    Where the mask is set by the score: UNKNOWN; what is an obstacle by its class alone keeps that
    class. Elsewhere inside the region of interest: the class id. Outside
    it, for `outside` = 'not_scored': NOT_SCORED; for 'labels': the class id, which no score has
    checked. Raises ConfigError for another `outside`.

    The mask speaks for the chosen classes: a known class that is not among `in_distribution` is
    unknown here, too. Choose all classes to see what the bundle has never been shown.
    """
    if outside not in OUTSIDE:
        raise ConfigError(f'open-set outside {outside!r}: choose one of {", ".join(OUTSIDE)}')
    cells = detection.labels.copy()
    if outside == OUTSIDE[0]:
        cells[~detection.scored] = NOT_SCORED
    strange = detection.surprisal >= surprisal_threshold(detection.false_alarm_rate)
    cells[detection.mask & strange] = UNKNOWN
    return cells


def open_set_names(classes: Sequence[str]) -> dict[int, str]:
    """Return what every value of the open-set labels means, for a LabelInfo."""
    names = dict(enumerate(classes[:UNKNOWN]))
    return {**names, UNKNOWN: UNKNOWN_NAME, NOT_SCORED: NOT_SCORED_NAME}
