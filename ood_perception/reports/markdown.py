# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Results as plain JSON values and as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

TITLES = {
    'average_precision': 'AP',
    'average_precision_missed': 'AP, lost counted',
    'component_average_precision': 'component-averaged AP',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
    'best_f1': 'best F1',
}


def percent(
    value: float | None, interval: Sequence[float | None] | None = None, places: int = 1
) -> str:
    """Write a share as '83.1 [70.2, 91.0]' in percent; '-' where undefined."""
    if value is None:
        return '-'
    text = f'{100 * value:.{places}f}'
    if interval is None or interval[0] is None or interval[1] is None:
        return text
    return f'{text} [{100 * interval[0]:.{places}f}, {100 * interval[1]:.{places}f}]'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every row has as many cells as the header."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'
