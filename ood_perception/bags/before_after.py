# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Two bundles on one recording: what each flags, and the frames that are worth labelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import write_csv
from ood_perception.files import make_folder
from ood_perception.image.geometry import to_camera_nearest
from ood_perception.json_files import write_json
from ood_perception.loader import Model
from ood_perception.postprocess.overlay import draw_overlay, encode_png
from ood_perception.reports.html import embedded, environment, write_page
from ood_perception.types import BoolArray, Detection, JsonDict, Tell

from .cameras import camera_frames, open_cameras
from .problems import FAIL, Problems
from .reading import Bag
from .statistics import Highest

_WIDTH = 960
TO_LABEL = 'to_label'
WHY = {
    'changed': 'the masks differ most',
    'disagreement': 'the scores disagree most',
    'highest': 'the highest scores',
}
_DISAGREED = 0.999  # of the pixels disagree less: one pixel is no reason to label a frame


@dataclass(frozen=True)
class FrameChange:
    """
    One frame under both bundles.

    before, after: flagged fraction of what is scored. changed: fraction of what both score that
    only one of them flags. disagreement: difference of their surprisals there, its 99.9 %
    quantile: one head finds normal what the other does not, whatever the threshold. highest: the
    largest scored surprisal of the second.
    """

    camera: str
    index: int
    stamp_ns: int
    before: float
    after: float
    obstacles_before: int
    obstacles_after: int
    changed: float
    disagreement: float
    highest: float


@dataclass(frozen=True)
class _Kept:
    """A frame that ranks high: its image for labelling, and both overlays side by side."""

    change: FrameChange
    jpeg: str
    image: bytes


def compare_bundles(
    bag: Path,
    out: Path,
    first: Model,
    second: Model,
    topics: Sequence[str],
    tell: Tell,
    most: int = 8,
) -> list[FrameChange]:
    """
    Write the folder `out`: index.html, report.json, frames.csv and to_label/ with images.

    most: frames shown of each kind. Raises ConfigError where `out` exists, DataError for a bag
    that cannot be read.
    """
    if out.exists():
        raise ConfigError(f'--out {out} exists: give a new folder')
    environment()  # without jinja2 there is no report: say so before the work
    changes: list[FrameChange] = []
    kept = {why: Highest[_Kept](most) for why in WHY}

    def fill(folder: Path) -> None:
        with Bag(bag, Problems(FAIL)) as opened:
            cameras = open_cameras(opened, topics)
            count = sum(camera.count for camera in cameras)
            frames = tqdm(camera_frames(opened, cameras), total=count, leave=False, disable=None)
            for number, frame in enumerate(frames):
                pair = first.pipeline.run([frame])[0], second.pipeline.run([frame])[0]
                changes.append(frame_change(*pair, number))
                _keep(kept, changes[-1], pair)
        _write(folder, bag, (first, second), changes, kept)

    make_folder(out, fill)
    tell(f'{len(changes)} frames; report: {out / "index.html"}; to label: {out / TO_LABEL}')
    return changes


def frame_change(first: Detection, second: Detection, index: int) -> FrameChange:
    """Return what two bundles find otherwise on one frame; their grids may differ."""
    maps = _aligned(first, second)
    both = maps[0].scored & maps[1].scored
    apart = np.abs(maps[0].surprisal - maps[1].surprisal)[both]
    return FrameChange(
        camera=first.frame.camera,
        index=index,
        stamp_ns=first.frame.stamp_ns,
        before=_fraction(first.mask, first.scored),
        after=_fraction(second.mask, second.scored),
        obstacles_before=len(first.obstacles),
        obstacles_after=len(second.obstacles),
        changed=_fraction((maps[0].mask ^ maps[1].mask) & both, both),
        disagreement=float(np.quantile(apart, _DISAGREED)) if apart.size else 0.0,
        highest=float(second.surprisal[second.scored].max(initial=0.0)),
    )


def _fraction(part: BoolArray, whole: BoolArray) -> float:
    return float(part.sum() / max(int(whole.sum()), 1))


def _aligned(first: Detection, second: Detection) -> tuple[Detection, Detection]:
    """Return both on one grid: heads of other sizes in camera pixels."""
    same = first.geometry == second.geometry and first.mask.shape == second.mask.shape
    return (first, second) if same else (_in_pixels(first), _in_pixels(second))


def _in_pixels(one: Detection) -> Detection:
    return replace(
        one,
        surprisal=to_camera_nearest(one.surprisal, one.geometry),
        scored=to_camera_nearest(one.scored, one.geometry),
        mask=to_camera_nearest(one.mask, one.geometry),
    )


def _keep(
    kept: Mapping[str, Highest[_Kept]], change: FrameChange, pair: tuple[Detection, Detection]
) -> None:
    """Draw a frame where it is among the first of a kind."""

    def drawn() -> _Kept:
        both = np.concatenate([draw_overlay(one) for one in pair], axis=1)
        return _Kept(change, embedded(both, _WIDTH), encode_png(pair[0].frame.image))

    for why, highest in kept.items():
        highest.add(getattr(change, why), drawn)


def _write(
    folder: Path,
    bag: Path,
    models: tuple[Model, Model],
    changes: Sequence[FrameChange],
    kept: Mapping[str, Highest[_Kept]],
) -> None:
    columns = list(FrameChange.__dataclass_fields__)
    write_csv(folder / 'frames.csv', columns, map(astuple, changes))
    (folder / TO_LABEL).mkdir()
    for highest in kept.values():
        for one in highest.items:
            name = f'{one.change.camera or "camera"}_{one.change.index:06d}.png'.replace('/', '_')
            (folder / TO_LABEL / name).write_bytes(one.image)
    report: JsonDict = {
        'bag': bag.name,
        'before': models[0].to_json(),
        'after': models[1].to_json(),
        'frames': len(changes),
        'flagged_before': float(np.mean([one.before for one in changes])) if changes else None,
        'flagged_after': float(np.mean([one.after for one in changes])) if changes else None,
        'obstacles_before': sum(one.obstacles_before for one in changes),
        'obstacles_after': sum(one.obstacles_after for one in changes),
    }
    write_json(folder / 'report.json', report)
    shown = {WHY[why]: highest.items for why, highest in kept.items()}
    write_page(folder / 'index.html', 'before_after.html.j2', report=report, shown=shown)
