# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The rows and cells of promise tables, whichever head they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ood_perception.metrics.false_alarm_rate import PictureAlarms, PromiseRow, promise_rows

NO_CLASS = 255


def readings_rows(
    counts: Mapping[str, Sequence[PictureAlarms]], names: Sequence[str], chosen: Sequence[str]
) -> dict[str, list[PromiseRow]]:
    """Return the rows of every reading; the served map's only for the classes that it serves."""
    rows = {}
    for reading, pictures in counts.items():
        pooled = chosen if reading == 'served' else names
        kept = promise_rows(pictures, names, pooled)
        shown = {*pooled, 'pooled'}
        rows[reading] = [row for row in kept if row.class_name in shown]
    return rows


def rate_cell(row: PromiseRow | None) -> str:
    """Return 'observed [low, high]' in per cent, bold within a factor of two of the promise."""
    if row is None:
        return ''
    low, high = 100 * row.interval.low, 100 * row.interval.high
    text = f'{100 * row.observed:.2f} [{low:.2f}, {high:.2f}]'
    return f'**{text}**' if row.kept else text
