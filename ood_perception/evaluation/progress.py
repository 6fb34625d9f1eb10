# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far a long run is, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 24
_SECONDS_BETWEEN = 0.5
# A log file gets a line now and then instead of a bar that moves.
_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """
    A bar on a terminal, lines in a log.

    total: number of steps by the index, 0 = unknown. label: stands before the bar. unit: of the
    steps, plural. shown: False tells nothing.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        label: str = '',
        unit: str = 'frames',
        shown: bool = True,
    ) -> None:
        self._total, self._stream = total, stream or sys.stderr
        self._label, self._unit = f'{label}: ' if label else '', unit
        self._telling = shown
        self._live = shown and self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self.done = 0

    def step(self) -> None:
        """Count one step; show it when it is time."""
        self.to(self.done + 1)

    def to(self, done: int) -> None:
        """Set how many steps are done; show it when it is time."""
        self.done = done
        now = time.monotonic()
        waited = now - self._shown
        if waited >= (_SECONDS_BETWEEN if self._live else _SECONDS_BETWEEN_LINES):
            self._shown = now
            if self._telling:
                self._tell(describe(self.done, self._total, now - self._start, self._unit))

    def _tell(self, text: str) -> None:
        text = self._label + text
        line, end = (f'\r{text}\x1b[K', '') if self._live else (text, '\n')
        print(line, end=end, file=self._stream, flush=True)

    def end(self) -> float:
        """Clear the bar; return the seconds since the start."""
        if self._live:
            print('\r\x1b[K', end='', file=self._stream, flush=True)
        return time.monotonic() - self._start


def describe(done: int, total: int, seconds: float, unit: str = 'frames') -> str:
    """Return '[####    ] 120 of 400 frames, 3.1/s, 1:30 left'."""
    rate = done / seconds if seconds > 0 else 0.0
    if total < done:
        return f'{done} {unit}, {rate:.1f}/s'
    filled = _WIDTH * done // total
    left = round((total - done) / rate) if rate else 0
    bar = '#' * filled + ' ' * (_WIDTH - filled)
    return f'[{bar}] {done} of {total} {unit}, {rate:.1f}/s, {left // 60}:{left % 60:02d} left'
