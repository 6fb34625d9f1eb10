# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of one moment count once: thinning of recordings that were labelled unevenly."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ood_perception.errors import DataError

_NUMBER = re.compile(r'(\d+)$')


def spaced_places(names: Sequence[str], sequences: Sequence[str], spacing: int) -> list[int]:
    """
    Return the places of pictures of one sequence that are at least `spacing` frames apart.

    A frame's number is the digits that end its name. Every sequence is gone through from its first
    frame on; a picture is left out that is nearer than that to the last one kept.
    spacing: 0 keeps all. Raises DataError for a name without a number.
    """
    if not spacing:
        return list(range(len(names)))
    order = sorted((sequences[i], frame_number(names[i]), i) for i in range(len(names)))
    kept: list[int] = []
    last: tuple[str, int] | None = None
    for sequence, frame, place in order:
        if last is None or last[0] != sequence or frame - last[1] >= spacing:
            kept.append(place)
            last = sequence, frame
    return sorted(kept)


def frame_number(name: str) -> int:
    """Return the number that ends a picture's name; DataError where there is none."""
    found = _NUMBER.search(name)
    if not found:
        raise DataError(
            f'picture {name!r} ends in no frame number: its distance to others is unknown; '
            'set data.calibration_spacing to 0'
        )
    return int(found[1])
