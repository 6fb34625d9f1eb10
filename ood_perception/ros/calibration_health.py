# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of its calibration: whether every camera's frames fit it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ood_perception.loader import drift_monitor
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.drift import CalibrationHealth, DriftMonitor
from ood_perception.ros.diagnostics import calibration_status
from ood_perception.types import Detection


class CalibrationMonitors:
    """One DriftMonitor a camera, made when its first frame comes."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras = tuple(cameras)
        self._monitors: dict[str, DriftMonitor] = {}

    def reset(self) -> None:
        """Start again: other classes may count as normal now."""
        self._monitors = {}

    def add(self, pipeline: Pipeline, detection: Detection) -> None:
        """Take one frame's detection, as the pipeline gave it."""
        monitor = self._monitors.get(detection.frame.camera)
        if monitor is None:
            monitor = drift_monitor(pipeline)
            self._monitors[detection.frame.camera] = monitor
        monitor.add(detection)

    def statuses(self, node: str) -> list[Any]:
        """Return the status '<node>: calibration <camera>' of every camera."""
        empty = CalibrationHealth()
        monitors = self._monitors
        health = {name: monitors[name].health if name in monitors else empty
                  for name in self._cameras}  # fmt: skip
        return [calibration_status(node, name, one) for name, one in health.items()]
