# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The few frames of a recording that rank highest, by whatever rank."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Highest(Generic[Item]):
    """Keeps the `most` items of the highest rank; of equals those that came first."""

    def __init__(self, most: int) -> None:
        self._most, self._number = most, 0
        self._heap: list[tuple[float, int, Item]] = []  # the numbers differ: no item is compared

    def add(self, rank: float, make: Callable[[], Item]) -> None:
        """Keep what `make` returns where it is among the highest; make is called only then."""
        self._number += 1
        full = len(self._heap) == self._most
        if not self._most or (full and rank <= self._heap[0][0]):
            return
        keep = heapq.heapreplace if full else heapq.heappush
        keep(self._heap, (rank, -self._number, make()))

    @property
    def items(self) -> list[Item]:
        """What is kept, the highest first."""
        return [item for _, _, item in sorted(self._heap, reverse=True)]
