# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All that lives between configure and cleanup, wired: model, cameras, outputs, worker."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

from ood_perception.loader import CalibrationMonitors
from ood_perception.parameters.settings import persistence_from
from ood_perception.postprocess.tracking import Tracker
from ood_perception.ros import dds
from ood_perception.ros.camera_input import CameraInput
from ood_perception.ros.diagnostics import InputStatus, calibration_status
from ood_perception.ros.frame_queue import FrameQueue
from ood_perception.ros.model import Model
from ood_perception.ros.outputs import RANGES, CameraOutputs
from ood_perception.ros.qos import describe
from ood_perception.ros.ranging import Ranging
from ood_perception.ros.timing import TimingWindow
from ood_perception.ros.watchdog import Watchdog
from ood_perception.ros.worker import Worker


class Session:
    """The configured node: all cameras share one model, queued frames one batch."""

    def __init__(self, node: Any, values: Mapping[str, Any]) -> None:
        """Load the model and create the topics; raises OodPerceptionError, leaving nothing."""
        self._node, self._values = node, values
        self.model = Model(values, node.log, node.health.progress)
        self.window = TimingWindow()
        self._tracker = Tracker(persistence_from(values))
        self._worker: Worker | None = None
        self._lock = threading.Lock()  # guards which worker is the current one
        self._closed = False
        self.watchdog = Watchdog(self._renew, node.log)
        self.queue = FrameQueue(values['cameras'], values['frame_queue'])
        self._outputs: dict[str, CameraOutputs] = {}
        self._inputs: dict[str, CameraInput] = {}
        self.calibration = CalibrationMonitors()
        try:
            self.ranging = Ranging(node, values)
        except Exception:  # tf2 is not installed
            self.model.close()
            raise
        try:
            for name in values['cameras']:
                outputs = CameraOutputs(node, name, values, self.update_inputs)
                self._outputs[name] = outputs
                self._inputs[name] = CameraInput(node, name, values, self.queue, outputs)
        except Exception:  # a topic name or QoS override that rclpy refuses
            self.close()
            raise

    @property
    def summary(self) -> str:
        """One line for the log: what serves which topics."""
        topics = ', '.join(camera.topic for camera in self._inputs.values())
        lazy = (
            ' while somebody subscribes to an output' if self._values['lazy_subscription'] else ''
        )
        return f'{self.model.summary}; listening to {topics}{lazy}'

    def activate(self) -> None:
        """Start the worker and publish the latched LabelInfos."""
        with self._lock:
            self._worker = self._started()
        self._set_active(True)
        self._publish_infos()

    def _started(self) -> Worker:
        self._tracker.reset()
        worker = Worker(
            node=self._node,
            queue=self.queue,
            model=self.model,
            ranging=self.ranging,
            tracker=self._tracker,
            inputs=self._inputs,
            outputs=self._outputs,
            window=self.window,
            calibration=self.calibration,
            most_pixels=round(self._values['max_megapixels'] * 1e6),
        )
        worker.start()
        return worker

    def watch(self) -> None:
        """Have the watchdog look at the worker; to be called once a second."""
        self.watchdog.check(self._worker, self._values['stall_timeout'])

    def _renew(self, old: Worker) -> None:
        """Put a new engine and a new worker in the place of one that was abandoned."""
        self.model.restart()
        with self._lock:
            if self._worker is old:
                self._worker = self._started()
        if self._closed:
            self.model.close()

    def deactivate(self, patience: float = math.inf) -> None:
        """Finish the frames in work, for `patience` seconds at most, and stop the worker."""
        self._set_active(False)
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(min(self._values['stall_timeout'], patience))

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take dynamic parameters over."""
        self._values = values
        self.model.apply(values)
        self._tracker.settings = persistence_from(values)
        self.ranging.apply(values)
        self.calibration.reset()
        for name, outputs in self._outputs.items():
            outputs.values = values
            self._inputs[name].lazy = values['lazy_subscription']
        if self._worker is not None:
            self._publish_infos()

    def update_inputs(self) -> None:
        """Adapt the subscriptions to who listens and to what the publishers offer."""
        cameras = list(self._inputs.values())
        for camera in cameras:
            camera.update()
        self.ranging.listen(any(camera.listening is not None for camera in cameras))

    def _set_active(self, active: bool) -> None:
        for camera in self._inputs.values():
            camera.active = active
        self.update_inputs()

    def input_status(self, name: str, state: str) -> InputStatus:
        """Return how a camera's topic looks, for diagnostics; state: the lifecycle's label."""
        camera = self._inputs[name]
        publishers = camera.publishers()
        return InputStatus(
            topic=camera.topic,
            publishers=len(publishers),
            offered=describe(publishers),
            requested=camera.reliability,
            transport=dds.transport_summary(),
            timeout=self._values['frame_timeout'],
            state=state,
            enabled=self._node.enabled,
            subscribed=bool(self._outputs[name].subscribed()),
            listening=camera.listening,
            mismatch=camera.mismatch(publishers),
            minimum_rate=self._values['minimum_rate'],
            problem=self.watchdog.problem,
        )

    def subscribed(self) -> list[str]:
        """Return the outputs that someone subscribes to, '<camera>/mask' of named cameras."""
        return [
            f'{name}/{output}' if name else output
            for name, outputs in list(self._outputs.items())
            for output in outputs.subscribed()
        ]

    def range_statuses(self, node: str) -> list[Any]:
        """Return what is to be reported of bearings and distances, where somebody wants any."""
        wanted = [n for n, outputs in self._outputs.items() if {*outputs.subscribed()} & {*RANGES}]
        return self.ranging.statuses(node, wanted)

    def calibration_statuses(self, node: str) -> list[Any]:
        """Return the status '<node>: calibration <camera>' of every camera."""
        health = self.calibration.health
        return [calibration_status(node, name, health(name)) for name in list(self._inputs)]

    def close(self, patience: float = math.inf) -> None:
        """Stop the worker as `deactivate` does, remove the topics, release the engine."""
        self._closed = True
        self.deactivate(patience)
        for camera in self._inputs.values():
            camera.destroy()
        for outputs in self._outputs.values():
            outputs.destroy()
        self.ranging.close()
        self.model.close()

    def _publish_infos(self) -> None:
        stamp = self._node.get_clock().now().to_msg()
        labels = dict(enumerate(self.model.classes))
        rate = self.model.pipeline.settings.false_alarm_rate
        for outputs in self._outputs.values():
            outputs.publish_infos(labels, rate, stamp)
