# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Frames that are worth a label, and the counts by which recordings are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ood_perception.bags.before_after import frame_change
from ood_perception.bags.replay import Replay
from ood_perception.bags.statistics import Highest, TruthCounts
from ood_perception.evaluation.record import file_name
from ood_perception.json_files import write_json
from ood_perception.loader import CalibrationMonitors, Model
from ood_perception.metrics.binning import BINS
from ood_perception.postprocess.overlay import encode_png
from ood_perception.types import Detection

TO_LABEL, MINED, COUNTS = 'to_label', 'mined.json', 'counts.npz'
HIGHEST, DISAGREEMENT, CALIBRATION = 'highest', 'disagreement', 'calibration'
REASONS = {
    HIGHEST: 'the highest scores',
    DISAGREEMENT: 'the two bundles flag different places',
    CALIBRATION: 'the calibration ceased to fit here',
}


@dataclass(frozen=True)
class Mined:
    """
    A frame that is worth a label.

    reason: a key of REASONS. rank: the larger the more: largest surprisal; fraction of what both
    bundles score that one alone flags; evidence against the calibration. text: what was said.
    """

    reason: str
    rank: float
    camera: str
    index: int
    stamp_ns: int
    text: str = ''

    @property
    def file(self) -> str:
        """The name of its image."""
        return f'{self.reason}_{file_name(self.camera or "camera")}_{self.index:06d}.png'


class Miner:
    """A Watch of one recording: keeps the images of `most` frames a reason, and all counts."""

    def __init__(self, model: Model, second: Model | None, most: int) -> None:
        self._model, self._second = model, second
        self._kept = {reason: Highest[tuple[Mined, bytes]](most) for reason in REASONS}
        self._monitors = CalibrationMonitors()
        self._warned: dict[str, str] = {}

    def add(self, detection: Detection, index: int) -> None:
        """Rank a frame by every reason."""
        highest = float(detection.surprisal[detection.scored].max(initial=0.0))
        self._keep(HIGHEST, highest, detection, index)
        if self._second is not None:
            other = self._second.pipeline.run([detection.frame])[0]
            changed = frame_change(detection, other, index).changed
            self._keep(DISAGREEMENT, changed, detection, index)
        camera = detection.frame.camera
        monitor = self._monitors.add(self._model.pipeline, detection)
        warning = monitor.health.warning
        if warning and not self._warned.get(camera):  # where it broke, not every frame after
            self._keep(CALIBRATION, monitor.stake, detection, index, warning)
        self._warned[camera] = warning

    def write(self, folder: Path, run: Replay) -> None:
        """Write counts.npz, mined.json and the images."""
        parts = {camera: frames.counts() for camera, frames in run.labelled.items()}
        write_truth(folder / COUNTS, parts)
        (folder / TO_LABEL).mkdir()
        kept = [one for highest in self._kept.values() for one in highest.items]
        for mined, png in kept:
            (folder / TO_LABEL / mined.file).write_bytes(png)
        write_json(folder / MINED, [asdict(mined) for mined, _ in kept])

    def _keep(
        self, reason: str, rank: float, detection: Detection, index: int, text: str = ''
    ) -> None:
        frame = detection.frame
        mined = Mined(reason, rank, frame.camera, index, frame.stamp_ns, text)
        if rank > 0:
            self._kept[reason].add(rank, lambda: (mined, encode_png(frame.image)))


def write_truth(path: Path, parts: Mapping[str, TruthCounts]) -> None:
    """Write the counts of labelled cameras; those without a labelled frame are left out."""
    found = {camera: one for camera, one in parts.items() if one.frames}
    np.savez_compressed(
        path,
        cameras=np.array(list(found), str),
        counts=np.array([one.counts for one in found.values()], np.int64).reshape(-1, 2, BINS),
        frames=np.array([one.frames for one in found.values()], np.int64),
        missed=np.array([one.missed for one in found.values()], np.int64),
    )


def read_truth(path: Path) -> dict[str, TruthCounts]:
    """Return what write_truth wrote, by camera."""
    with np.load(path, allow_pickle=False) as arrays:
        columns = [arrays[name] for name in ('cameras', 'frames', 'counts', 'missed')]
    rows = zip(*columns, strict=True)
    return {str(c): TruthCounts(int(f), counts, int(m)) for c, f, counts, m in rows}
