# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo page's chart, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 900, 190, 52, 90, 28, 24


def latency_chart(latencies: Sequence[float]) -> str:
    """Return bars of milliseconds per frame with a median line, as an SVG element; '' for none."""
    if not latencies:
        return ''
    top = _round_up(max(latencies))
    scale = (_HEIGHT - _BOTTOM - _TOP) / top
    right = _WIDTH - _RIGHT
    slot = (right - _LEFT) / len(latencies)
    base = _HEIGHT - _BOTTOM
    bars = ''.join(
        f'<rect x="{_LEFT + i * slot + 0.15 * slot:.1f}" y="{base - ms * scale:.1f}" '
        f'width="{0.7 * slot:.1f}" height="{ms * scale:.1f}" fill="#4f8fd0">'
        f'<title>frame {i + 1}: {ms:.0f} ms</title></rect>'
        for i, ms in enumerate(latencies)
    )
    median = float(np.median(latencies))
    line = base - median * scale
    ticks = ''.join(
        _text(_LEFT - 8, base - value * scale + 4, 'end', f'{value:g}')
        + f'<path d="M{_LEFT} {base - value * scale:.1f}H{right}" stroke="#2a3038"/>'
        for value in (0.0, top / 2, top)
    )
    numbers = ''.join(
        _text(_LEFT + (i + 0.5) * slot, base + 16, 'middle', f'{i + 1}')
        for i in range(0, len(latencies), max(1, len(latencies) // 16))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        'aria-label="latency of every frame">'
        '<text x="0" y="12">milliseconds from publishing a frame to receiving its mask, per frame'
        f'</text>{ticks}{bars}{numbers}'
        f'<path d="M{_LEFT} {line:.1f}H{right}" stroke="#f0c674" stroke-dasharray="5 4"/>'
        f'{_text(right + 6, line + 4, "start", f"median {median:.0f}")}</svg>'
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    """Return an SVG text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten, at least 1."""
    power = 10.0 ** np.floor(np.log10(max(value, 1.0)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))
