# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What went wrong in a bag: refused at once or skipped and counted, as the user chose."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from ood_perception.errors import ConfigError, DataError
from ood_perception.types import JsonDict

FAIL, SKIP = 'fail', 'skip'
ON_ERROR = (SKIP, FAIL)
# Kinds of problems, as reports and tests name them.
DAMAGED_FILE = 'damaged file'
MISSING_FILE = 'missing file'
UNNAMED_FILE = 'file that metadata.yaml does not name'
FEWER_MESSAGES = 'fewer messages than declared'
MESSAGE_TYPE = 'unknown message type'
CORRUPT_MESSAGE = 'corrupt message'
SIZE_CAP = 'size cap exceeded'
BAD_FRAME = 'frame does not decode'
BAD_LABEL = 'ground truth does not fit'
_OF_THE_WHOLE_BAG = (DAMAGED_FILE, MISSING_FILE, UNNAMED_FILE, FEWER_MESSAGES, MESSAGE_TYPE)
_TOLD = 20


@dataclass(frozen=True)
class Problem:
    """
    One thing that could not be used.

    kind: one of this module's names. place: topic and log time, or the file.
    text: value, place and remedy, for people.
    """

    kind: str
    place: str
    text: str


class Problems:
    """Refuses the first problem (on_error 'fail') or counts them all ('skip')."""

    def __init__(self, on_error: str = SKIP) -> None:
        """Raise ConfigError for an unknown choice."""
        if on_error not in ON_ERROR:
            raise ConfigError(f'--on-error {on_error!r}: use {" or ".join(ON_ERROR)}')
        self.on_error = on_error
        self.counts: Counter[str] = Counter()
        self.told: list[Problem] = []
        self._whole: set[Problem] = set()

    def add(self, kind: str, place: str, text: str) -> None:
        """Count a Problem of these values; DataError with its text when problems are refused."""
        if self.on_error == FAIL:
            raise DataError(f'{text} (--on-error skip goes on without it)')
        problem = Problem(kind, place, text)
        if kind in _OF_THE_WHOLE_BAG:
            if problem in self._whole:  # a second pass over the bag finds them again
                return
            self._whole.add(problem)
        self.counts[kind] += 1
        if len(self.told) < _TOLD:
            self.told.append(problem)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def to_json(self) -> JsonDict:
        """Return the counts by kind and the first texts."""
        return {
            'on_error': self.on_error,
            'counts': dict(sorted(self.counts.items())),
            'first': [asdict(problem) for problem in self.told],
        }
