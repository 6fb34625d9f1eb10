# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which images fit and which are held out: ends of stretches, one image of each moment."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ood_perception.errors import DataError

from .images import ImageList

_NUMBER = re.compile(r'(\d+)$')


def spaced_places(names: Sequence[str], sequences: Sequence[str], spacing: int) -> list[int]:
    """
    Return the places of images of one sequence that are at least `spacing` frames apart.

    A frame's number is the digits that end its name. Every sequence is gone through from its first
    frame on; an image is left out that is nearer than that to the last one kept.
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
    """Return the number that ends an image's name; DataError where there is none."""
    found = _NUMBER.search(name)
    if not found:
        raise DataError(
            f'image {name!r} ends in no frame number: its distance to others is unknown; '
            'set data.calibration_spacing to 0'
        )
    return int(found[1])


def split_contiguous(
    images: ImageList,
    calibration_fraction: float = 0.25,
    keep_single: bool = False,
    blocks: int = 1,
) -> tuple[ImageList, ImageList]:
    """
    Split every sequence, or every one of its `blocks` stretches, into its first and its last part.

    Neighbouring frames of a drive are nearly the same image, so a random split would let the
    calibration see what was fitted on. calibration_fraction: share of each sequence's images
    in the second list, in [0, 1); rounded, at least one and not all of them unless it is 0.
    keep_single: sequences of one image go whole into the first list. blocks: of about equal
    length, at least two images each: the end of a drive alone may be unlike the rest of it.

    Returns (fit, calibration). Raises DataError for another fraction, for a one-image sequence
    that is not to be kept, and where keeping them leaves nothing to calibrate.
    """
    if not 0.0 <= calibration_fraction < 1.0:
        raise DataError(f'calibration fraction {calibration_fraction} is not between 0 and 1')
    if not calibration_fraction:
        return images, images.subset([])
    fit: list[int] = []
    held_out: list[int] = []
    for sequence in dict.fromkeys(images.sequences):
        members = [i for i, s in enumerate(images.sequences) if s == sequence]
        if len(members) < 2 and keep_single:
            fit += members
            continue
        if len(members) < 2:
            raise DataError(f'sequence {sequence!r} has one image: it cannot be split')
        for stretch in np.array_split(members, min(blocks, len(members) // 2)):
            count = min(max(1, round(calibration_fraction * len(stretch))), len(stretch) - 1)
            fit += stretch[:-count].tolist()
            held_out += stretch[-count:].tolist()
    if not held_out:
        raise DataError('no sequence has two images: there is nothing to hold out')
    return images.subset(fit), images.subset(held_out)
