# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's page: one HTML file beside its pictures that needs no explanation and no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ood_perception.demo.charts import latency_chart
from ood_perception.demo.verdict import (
    ALLOWED_EXCESS,
    FOUND_SHARE,
    MINIMUM_PATCHES,
    REQUIRED_FOUND,
    FrameCheck,
    Verdict,
)
from ood_perception.reports import html as page
from ood_perception.types import MASK_NOT_SCORED, MASK_OBSTACLE, Float32Array, UInt8Array

_SCORE_LOW, _SCORE_HIGH = 0.0, 5.0
_MASK_COLORS = {'normal': (64, 150, 84), 'obstacle': (235, 52, 72), 'not scored': (52, 56, 64)}


@dataclass(frozen=True)
class FrameResult:
    """
    What the node published for one frame.

    image, overlay: uint8 (H, W, 3) RGB. surprisal: float32 (H, W), NaN = not scored.
    mask: uint8 (H, W). latency_ms: from publishing the frame to the mask's arrival.
    obstacles: how many the node marked. check: against the truth, None where nothing is known.
    """

    name: str
    image: UInt8Array
    overlay: UInt8Array
    surprisal: Float32Array
    mask: UInt8Array
    latency_ms: float
    obstacles: int
    check: FrameCheck | None = None


@dataclass(frozen=True)
class Run:
    """
    The whole demo.

    source: where the pictures are from. note: what the project drew itself, '' where nothing.
    facts: engine, precision, bundle and so on. counters: the node's own frame counters.
    sent: frames published. node_ms: the node's stage times, stage -> text.
    licences: what the default bundle derives from, one line each.
    """

    source: str
    note: str
    facts: Mapping[str, str]
    counters: Mapping[str, int]
    sent: int
    node_ms: Mapping[str, str]
    verdict: Verdict
    licences: Sequence[str] = field(default=())


def write_page(folder: Path, frames: Sequence[FrameResult], run: Run) -> Path:
    """Write the pictures and index.html into a folder; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = [_section(folder, number, frame) for number, frame in enumerate(frames, 1)]
    chart = latency_chart([frame.latency_ms for frame in frames])
    body = '\n'.join([_summary(run), _facts(run, frames), chart, _legend(), *sections, _end(run)])
    return page.write_page(folder / 'index.html', 'Road anomaly demo', [page.Html(body)])


def heat(surprisal: Float32Array) -> UInt8Array:
    """Return surprisal 0..5 as colours, uint8 (H, W, 3) RGB; grey where nothing was scored."""
    scored = np.isfinite(surprisal)
    share = (np.nan_to_num(surprisal) - _SCORE_LOW) / (_SCORE_HIGH - _SCORE_LOW)
    level = (np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO))[..., ::-1].copy()
    colors[~scored] = _MASK_COLORS['not scored']
    return np.asarray(colors, dtype=np.uint8)


def mask_picture(mask: UInt8Array, check: FrameCheck | None) -> UInt8Array:
    """Return the mask in colours, uint8 (H, W, 3) RGB, with the known boxes drawn."""
    picture = np.zeros((*mask.shape, 3), np.uint8)
    picture[:] = _MASK_COLORS['normal']
    picture[mask == MASK_OBSTACLE] = _MASK_COLORS['obstacle']
    picture[mask == MASK_NOT_SCORED] = _MASK_COLORS['not scored']
    line = max(2, mask.shape[0] // 240)
    for one in check.objects if check else ():
        x, y, width, height = one.box
        low, high = (x - line, y - line), (x + width + line, y + height + line)
        cv2.rectangle(
            picture, low, high, (255, 255, 255) if one.counted else (150, 150, 150), line
        )
    return picture


def _section(folder: Path, number: int, frame: FrameResult) -> str:
    """Write one frame's pictures; return its HTML."""
    views = {
        'camera picture': ('input', frame.image),
        'overlay, as published': ('overlay', frame.overlay),
        'surprisal': ('surprisal', heat(frame.surprisal)),
        'mask': ('mask', mask_picture(frame.mask, frame.check)),
    }
    figures = [
        page.figure(
            page.save_jpeg(folder, f'{number:03d}_{kind}.jpg', picture),
            *(title, f'{title}, {frame.name}'),
        )
        for title, (kind, picture) in views.items()
    ]
    noun = 'obstacle' if frame.obstacles == 1 else 'obstacles'
    line = f'{frame.obstacles} {noun} marked; {frame.latency_ms:.0f} ms from camera to mask'
    return (
        f'<section><h2>{html.escape(frame.name)}</h2><p>{line}{_check_line(frame.check)}</p>'
        f'{page.figures(figures, wide=True)}</section>'
    )


def _check_line(check: FrameCheck | None) -> str:
    """Return what the truth says of a frame, as HTML."""
    if check is None:
        return ''
    parts = []
    for one in check.objects:
        word = 'found' if one.found else 'missed' if one.counted else 'too small to count'
        kind = 'good' if one.found else 'bad' if one.counted else 'dim'
        parts.append(
            f'<span class="{kind}">object {word}</span> ({one.covered:.0%} of it flagged)'
        )
    if check.road_pixels:
        share = check.flagged / check.road_pixels
        parts.append(f'{share:.2%} of the rest of the road flagged')
    return '; ' + '; '.join(parts) if parts else ''


def _summary(run: Run) -> str:
    """Return headline, verdict and where the pictures are from."""
    verdict = run.verdict
    if not verdict.checked and verdict.passed:
        state, text = 'dim', 'ran; nothing is known of these pictures, so nothing is judged'
    elif verdict.passed:
        state, text = 'good', 'passed'
    else:
        state, text = 'bad', 'failed: ' + '; '.join(verdict.reasons)
    note = f'<strong>{html.escape(run.note)}</strong> ' if run.note else ''
    return (
        f'<header><h1>Road anomaly demo: <span class="{state}">{html.escape(text)}</span></h1>'
        f'<p>Camera frames went through real DDS to <code>road_anomaly_node</code>; everything '
        f'below is what the node published. {note}Set DEMO_INPUT to see your own.</p></header>'
    )


def _facts(run: Run, frames: Sequence[FrameResult]) -> str:
    """Return the table of figures."""
    verdict = run.verdict
    rows = {'pictures from': run.source, **run.facts}
    rows['frames'] = (
        f'{run.sent} published, {run.counters.get("processed", 0)} processed, '
        f'{run.counters.get("dropped", 0)} dropped for a newer one, {len(frames)} received back'
    )
    if frames:
        latency = np.array([frame.latency_ms for frame in frames])
        rows['camera to mask'] = (
            f'{np.median(latency):.0f} ms median, {latency.max():.0f} ms worst'
        )
    rows.update(run.node_ms)
    if verdict.checked:
        rows['object found'] = (
            f'{verdict.found} of {verdict.counted} times (found: at least {FOUND_SHARE:.0%} of it '
            f'flagged; counted: at least {MINIMUM_PATCHES:g} network patches large; needed: '
            f'{REQUIRED_FOUND:.0%})'
        )
        rows['rest of the road flagged'] = (
            f'{verdict.share:.2%} of {verdict.road_pixels / 1e6:.1f} million pixels; promised '
            f'{verdict.promised:.2%}, allowed here {ALLOWED_EXCESS * verdict.promised:.2%} '
            '(within one patch of an object the network sees the object: left out)'
        )
    return page.facts(rows)


def _legend() -> str:
    """Return how to read the pictures."""
    swatches = ''.join(
        f'<span class="swatch" style="background:rgb{color}"></span>{name}'
        for name, color in _MASK_COLORS.items()
    )
    return (
        '<p class="legend">Surprisal is &minus;log<sub>10</sub> of the share of ordinary road '
        f'that looks as strange: <span class="bar"></span> {_SCORE_LOW:g} to {_SCORE_HIGH:g} and '
        f'more. Mask: {swatches}; a white box is the known place of an object. '
        'Cars and people are marked, too: only the classes of <code>in_distribution</code>, by '
        'default road and pavement, count as normal.</p>'
    )


def _end(run: Run) -> str:
    """Return the licence notes."""
    title = '<h2>What the bundle derives from</h2>'
    return f'<footer>{title}{page.bullets(run.licences)}</footer>' if run.licences else ''
