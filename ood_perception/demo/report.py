# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's page beside its images, which needs no network; and how fast the engine is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.postprocess.overlay import MASK_COLORS, color_mask, color_score
from ood_perception.reports import html
from ood_perception.types import MASK_NAMES, Float32Array, JsonDict, UInt8Array

from . import verdict
from .verdict import FrameCheck, Verdict


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

    source: where the images are from. note: what the project drew itself, '' where nothing.
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
    """Write the images and index.html into a folder; return the page's path."""
    rate = run.verdict.target
    folder.mkdir(parents=True, exist_ok=True)
    return html.write_page(
        folder / 'index.html',
        'demo.html.j2',
        run=run,
        limits=verdict,
        frames=[(one, _views(folder, number, one, rate)) for number, one in enumerate(frames, 1)],
        chart=latency_chart([frame.latency_ms for frame in frames]),
        threshold=surprisal_threshold(rate),
        mask_colors={name: MASK_COLORS[value] for value, name in MASK_NAMES.items()},
    )


def mask_image(mask: UInt8Array, check: FrameCheck | None) -> UInt8Array:
    """Return the mask in colours, uint8 (H, W, 3) RGB, with the known boxes drawn."""
    image = color_mask(mask)
    line = max(2, mask.shape[0] // 240)
    for one in check.objects if check else ():
        x, y, width, height = one.box
        low, high = (x - line, y - line), (x + width + line, y + height + line)
        cv2.rectangle(image, low, high, (255, 255, 255) if one.counted else (150, 150, 150), line)
    return image


def _views(folder: Path, number: int, frame: FrameResult, rate: float) -> dict[str, str]:
    """Write one frame's images; return title -> file; rate: the target."""
    images = {
        'camera image': ('input', frame.image),
        'overlay, as published': ('overlay', frame.overlay),
        'surprisal': ('surprisal', color_score(frame.surprisal, rate)),
        'mask': ('mask', mask_image(frame.mask, frame.check)),
    }
    return {
        title: html.save_jpeg(folder, f'{number:03d}_{kind}.jpg', image)
        for title, (kind, image) in images.items()
    }


def latency_chart(latencies: Sequence[float]) -> JsonDict | None:
    """Return what the chart of milliseconds per frame shows; None without frames."""
    if not latencies:
        return None
    worst = max(latencies)
    power = 10.0 ** np.floor(np.log10(max(worst, 1.0)))
    top = next(step * power for step in (1, 2, 5, 10) if step * power >= worst)
    return {'bars': latencies, 'median': float(np.median(latencies)), 'worst': worst, 'top': top}


@dataclass(frozen=True)
class Speed:
    """The engine test: runtime, version, precision; seconds of one frame, seconds to build."""

    description: dict[str, str]
    seconds: float
    built: float


def try_engine(bundle: Bundle, options: EngineOptions) -> Speed:
    """Build a completed bundle's engine as the node will; its golden check tells its time."""
    begin = time.monotonic()
    with create_engine(bundle, options) as engine:
        built = time.monotonic() - begin
        return Speed(dict(engine.description), engine.run_ms / 1e3, built)
