# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Labels matched to frames by stamps that are unique; what cannot be matched is said."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ood_perception.errors import DataError

_UNITS = ((1_000_000_000, 'seconds'), (1_000_000, 'milliseconds'), (1_000, 'microseconds'))
_REMEDY = (
    'publish each label with the stamp of its frame, unchanged, or give a folder of labels named '
    'by the index of their frames (000000.png)'
)


def match_stamps(
    labels: Mapping[int, Sequence[Path]], frames: Sequence[int], place: str
) -> tuple[dict[int, Path], list[str]]:
    """
    Return the labels by stamp that belong to one frame each, and what is wrong with the others.

    labels: files by stamp in nanoseconds; frames: stamps of the frames; place: for messages.
    A stamp that two labels or two frames share matches nothing. Raises DataError, with the
    nearest distance, when there are labels and none can be matched.
    """
    count = Counter(frames)
    total = sum(map(len, labels.values()))
    shared = [stamp for stamp, files in labels.items() if len(files) > 1 or count[stamp] > 1]
    alone = [stamp for stamp in labels if not count[stamp]]
    matched = {stamp: files[0] for stamp, files in labels.items() if count[stamp] == 1}
    for stamp in shared:
        matched.pop(stamp, None)
    problems = []
    if shared:
        number = sum(len(labels[stamp]) for stamp in shared)
        problems.append(
            f'{place}: {number} of {total} labels cannot be matched: several labels or several '
            f'frames have the same stamp (as {shared[0]}, {len(labels[shared[0]])} labels and '
            f'{count[shared[0]]} frames); {_REMEDY}'
        )
    if alone:
        problems.append(
            f'{place}: {len(alone)} of {total} stamps of labels are no stamp of a frame'
            f'{_nearest(alone, frames)}{_rounded(alone, frames)}; {_REMEDY}'
        )
    if labels and not matched:
        raise DataError('; '.join(problems))
    return matched, problems


def match_indices(labels: Mapping[int, Path], frames: int, place: str) -> list[str]:
    """Return what is wrong with labels by index; DataError when none is of a frame."""
    beyond = sorted(index for index in labels if index >= frames)
    if not beyond:
        return []
    text = (
        f'{place}: {len(beyond)} of {len(labels)} labels are named by an index that no frame has '
        f'(as {labels[beyond[0]].name}; the bag has {frames} frames, counted from 0)'
    )
    if len(beyond) == len(labels):
        raise DataError(text)
    return [text]


def _nearest(labels: Sequence[int], frames: Sequence[int]) -> str:
    """Return the smallest distance of a label to a frame in words."""
    known = sorted(set(frames))
    if not known:
        return ': there is no frame'
    pairs = []
    for label in labels:
        place = bisect(known, label)
        pairs += [(abs(label - frame), label, frame) for frame in known[max(0, place - 1) :][:2]]
    distance, label, frame = min(pairs)
    return f', the nearest are {distance / 1e9:g} s apart (label {label}, frame {frame})'


def _rounded(labels: Sequence[int], frames: Sequence[int]) -> str:
    """Return whether labels are stamped in a coarser unit than frames, in words."""
    for unit, name in _UNITS:
        if not any(label % unit for label in labels) and any(frame % unit for frame in frames):
            return f'; the stamps of the labels are rounded to {name}'
    return ''
