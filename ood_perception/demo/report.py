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
from ood_perception.image.geometry import geometry_for, to_network
from ood_perception.reports import html
from ood_perception.types import MASK_NOT_SCORED, MASK_OBSTACLE, Float32Array, JsonDict, UInt8Array

from . import verdict
from .verdict import FrameCheck, Verdict

_RUNS = 3
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
    folder.mkdir(parents=True, exist_ok=True)
    return html.write_page(
        folder / 'index.html',
        'demo.html.j2',
        run=run,
        limits=verdict,
        frames=[(frame, _views(folder, number, frame)) for number, frame in enumerate(frames, 1)],
        chart=latency_chart([frame.latency_ms for frame in frames]),
        score_range=(_SCORE_LOW, _SCORE_HIGH),
        mask_colors=_MASK_COLORS,
    )


def heat(surprisal: Float32Array) -> UInt8Array:
    """Return surprisal 0..5 as colours, uint8 (H, W, 3) RGB; grey where nothing was scored."""
    scored = np.isfinite(surprisal)
    share = (np.nan_to_num(surprisal) - _SCORE_LOW) / (_SCORE_HIGH - _SCORE_LOW)
    level = (np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO))[..., ::-1].copy()
    colors[~scored] = _MASK_COLORS['not scored']
    return np.asarray(colors, dtype=np.uint8)


def mask_image(mask: UInt8Array, check: FrameCheck | None) -> UInt8Array:
    """Return the mask in colours, uint8 (H, W, 3) RGB, with the known boxes drawn."""
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[:] = _MASK_COLORS['normal']
    image[mask == MASK_OBSTACLE] = _MASK_COLORS['obstacle']
    image[mask == MASK_NOT_SCORED] = _MASK_COLORS['not scored']
    line = max(2, mask.shape[0] // 240)
    for one in check.objects if check else ():
        x, y, width, height = one.box
        low, high = (x - line, y - line), (x + width + line, y + height + line)
        cv2.rectangle(image, low, high, (255, 255, 255) if one.counted else (150, 150, 150), line)
    return image


def _views(folder: Path, number: int, frame: FrameResult) -> dict[str, str]:
    """Write one frame's images; return title -> file."""
    images = {
        'camera image': ('input', frame.image),
        'overlay, as published': ('overlay', frame.overlay),
        'surprisal': ('surprisal', heat(frame.surprisal)),
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


def try_engine(bundle: Bundle, options: EngineOptions, image: UInt8Array) -> Speed:
    """Build a completed bundle's engine as the node will; time it on an image (H, W, 3) RGB."""
    begin = time.monotonic()
    with create_engine(bundle, options) as engine:
        built = time.monotonic() - begin
        spec = bundle.manifest.input
        geometry = geometry_for(
            camera_size=image.shape[:2],
            input_size=(spec.height, spec.width),
            policy=spec.policy,
            anchor=spec.anchor,
        )
        batch = to_network(image, geometry)[None]
        vector = np.ones(len(engine.compiled_classes), np.float32)
        times = []
        for _ in range(_RUNS):
            begin = time.monotonic()
            engine.run(batch, vector)
            times.append(time.monotonic() - begin)
        return Speed(dict(engine.description), min(times), built)
