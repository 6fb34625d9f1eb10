# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The report's plots as SVG text; the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ood_perception.errors import required
from ood_perception.requirements import install_command
from ood_perception.texts import printable
from ood_perception.types import JsonDict

# target, observed, its interval
Rate = tuple[float, float | None, Sequence[float | None]]
MOST_LINES = 6
_TEXT, _GRID = '#b6bfca', '#2a3038'
_COLORS = ('#7db4ea', '#f0c674', '#5fd38a', '#ff6b7d', '#c792ea', '#7fdbca')
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'ood_perception',
    'font.family': 'sans-serif',
    'font.size': 10,
    'text.color': _TEXT,
    'axes.labelcolor': _TEXT,
    'axes.edgecolor': '#4a525e',
    'axes.facecolor': 'none',
    'figure.facecolor': 'none',
    'savefig.facecolor': 'none',
    'xtick.color': _TEXT,
    'ytick.color': _TEXT,
    'grid.color': _GRID,
    'axes.grid': True,
    'legend.frameon': False,
}


@contextmanager
def _axes(
    count: int, width: float = 11.0, height: float = 4.0
) -> Iterator[tuple[Any, Any, list[str]]]:
    """Offer a figure, its axes and a list that receives its SVG text at the end."""
    remedy = f"the report's plots need matplotlib: {install_command('train')}"
    matplotlib = required('matplotlib', remedy)
    from matplotlib.figure import Figure

    text: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        axes = figure.subplots(1, count, squeeze=False)[0]
        for axis in axes:
            axis.set_prop_cycle(color=_COLORS)
        yield figure, axes, text
        buffer = io.StringIO()
        figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
        svg = buffer.getvalue()
        head, _, rest = svg[svg.index('<svg') :].partition('<metadata>')
        text.append(head + rest.partition('</metadata>')[2] if rest else head)


def _label(name: str) -> str:
    """Return a run's name as a label: no formula, and not left out of the legend."""
    text = printable(name, 100).replace('$', r'\$')
    return f' {text}' if text.startswith('_') else text


def curve_plot(curves: Mapping[str, JsonDict], shares: Mapping[str, float]) -> str:
    """
    Draw precision over recall, and recall over the false positive rate.

    curves: run -> summary.curve_points. shares: run -> anomaly share of all pixels, the
    precision of a guess.
    """
    with _axes(2) as (_, (left, right), text):
        for name, curve in list(curves.items())[:MOST_LINES]:
            left.step(curve['recall'], curve['precision'], where='pre', label=_label(name), lw=1.6)
            right.plot(curve['false_positive_rate'], curve['recall'], label=_label(name), lw=1.6)
        for share in list(shares.values())[:1]:
            left.axhline(share, color=_TEXT, lw=1, ls=':', label='a guess')
        left.set(
            xlabel='recall: share of anomaly pixels found',
            ylabel='precision',
            title='Precision and recall',
        )
        right.set(xlabel='false positive rate (logarithmic)', ylabel='recall', title='ROC')
        right.set_xscale('log')
        right.axhline(0.95, color=_TEXT, lw=1, ls=':', label='FPR95 is read here')
        right.set_xlim(1e-5, 1)
        for axis in (left, right):
            axis.set_ylim(0, 1.02)
            axis.legend(fontsize=9)
        left.set_xlim(0, 1)
    return text[0]


def calibration_plot(curves: Mapping[str, Sequence[Rate]]) -> str:
    """
    Draw the observed over the target false-alarm rate, both logarithmic.

    curves: name -> (target, observed, [low, high]) rows; rows without an observed rate are left
    out.
    """
    with _axes(1, 6.2, 4.4) as (_, (axis,), text):
        ends = [1e-4, 0.5]
        axis.fill_between(
            *(ends, [v / 2 for v in ends], [v * 2 for v in ends]),
            color='#5fd38a', alpha=0.12, lw=0, label='within a factor of two',
        )  # fmt: skip
        axis.plot(ends, ends, color='#5fd38a', lw=1, ls='--', label='as targeted')
        for (name, rows), color in zip(list(curves.items())[:MOST_LINES], _COLORS, strict=False):
            rows = [row for row in rows if row[1]]
            target = [row[0] for row in rows]
            observed = [row[1] or 0.0 for row in rows]
            axis.plot(target, observed, marker='o', ms=4, lw=1.4, label=_label(name), color=color)
            low = [max(row[2][0] or 1e-6, 1e-6) for row in rows]
            high = [max(row[2][1] or 1e-6, 1e-6) for row in rows]
            axis.vlines(target, low, high, lw=1, alpha=0.7, color=color)
        axis.set(xscale='log', yscale='log', xlim=(8e-5, 0.6), ylim=(2e-5, 1.2))
        axis.set(xlabel='target false-alarm rate', ylabel='observed share flagged')
        axis.legend(fontsize=9)
    return text[0]


def histogram_plot(histogram: JsonDict) -> str:
    """Draw the share of normal and of anomaly pixels per tenth of surprisal."""
    with _axes(1, 6.2, 4.4) as (_, (axis,), text):
        starts = histogram['from']
        for name, color in (('normal', _COLORS[2]), ('anomaly', _COLORS[3])):
            shares = [max(v, 0.0) for v in histogram[name]]
            axis.bar(starts, shares, 0.1, align='edge', alpha=0.55, label=name, color=color)
        axis.axvline(2.0, color=_TEXT, lw=1, ls='--', label='flagged from here at 1 %')
        axis.set(yscale='log', xlim=(0, 6.1), xlabel='surprisal (the last bar: 6 and above)')
        axis.set_ylim(bottom=1e-6)
        axis.set_ylabel('share of pixels')
        axis.legend(fontsize=9)
    return text[0]
