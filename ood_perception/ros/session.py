# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All that lives between configure and cleanup: model, cameras, outputs and the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ood_perception.errors import OodPerceptionError
from ood_perception.image.decode import NANOSECONDS
from ood_perception.parameters.settings import persistence_from
from ood_perception.postprocess.overlay import OverlayOptions
from ood_perception.postprocess.tracking import Tracker
from ood_perception.ros import dds
from ood_perception.ros.camera_input import CameraInput
from ood_perception.ros.diagnostics import InputSituation
from ood_perception.ros.frame_queue import Mailbox, Waiting
from ood_perception.ros.messages import stamp_ns
from ood_perception.ros.model import Model
from ood_perception.ros.outputs import OutputOptions
from ood_perception.ros.point_clouds import PLACES
from ood_perception.ros.publishers import INFOS, CameraOutputs, vision_messages
from ood_perception.ros.qos import describe
from ood_perception.ros.ranging import Places
from ood_perception.ros.timing import FrameTimes, TimingWindow
from ood_perception.ros.worker import Worker
from ood_perception.types import Detection, Frame

_MOST_LATENCY_NS = 3600 * NANOSECONDS


class Session:
    """The configured node: all cameras share one model, waiting frames one batch."""

    def __init__(self, node: Any, values: Mapping[str, Any]) -> None:
        """Load the model and create the topics; raises OodPerceptionError, leaving nothing."""
        self._node = node
        self._values = values
        self.model = Model(values, node.log)
        self.window = TimingWindow()
        self._tracker = Tracker(persistence_from(values))
        self._worker: Worker | None = None
        self._vision = vision_messages()
        names: Sequence[str] = values['cameras']
        self.mailbox = Mailbox(names, values['frame_queue'])
        options = _output_options(values)
        self._outputs: dict[str, CameraOutputs] = {}
        self._inputs: dict[str, CameraInput] = {}
        self.places = Places(node, values)
        try:
            for name in names:
                self._outputs[name] = CameraOutputs(node, name, options, self._vision)
                self._inputs[name] = self._input(name)
        except Exception:  # a topic name or QoS override that rclpy refuses
            self.close()
            raise

    @property
    def missing_outputs(self) -> str:
        """Why some topics are absent, '' when all are there."""
        if self._vision is not None:
            return ''
        topics = ', '.join(('obstacles', *INFOS))
        return f'{topics} are off: vision_msgs is not installed'

    @property
    def summary(self) -> str:
        """One line for the log: what serves which topics."""
        values = self.model.situation().values
        topics = ', '.join(camera.topic for camera in self._inputs.values())
        return f'bundle {values["bundle"]} on {values.get("runtime", "?")}, listening to {topics}'

    def activate(self) -> None:
        """Start the worker and publish the latched LabelInfos."""
        self._tracker.reset()
        self._worker = Worker(self.mailbox, self._run, self._publish, self._node.log, self.window)
        self._worker.start()
        self._publish_infos()

    def deactivate(self) -> None:
        """Finish the frames in work and stop the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take dynamic parameters over."""
        self._values = values
        self.model.apply(values)
        self._tracker.settings = persistence_from(values)
        self.places.apply(values)
        for outputs in self._outputs.values():
            outputs.options = _output_options(values)
        if self._worker is not None:
            self._publish_infos()

    def follow_publishers(self) -> None:
        """Adapt the subscriptions to what the publishers offer."""
        for camera in self._inputs.values():
            camera.follow_publishers()

    def situation(self, name: str, state: str) -> InputSituation:
        """Return how a camera's topic looks, for diagnostics; state: the lifecycle's label."""
        camera = self._inputs[name]
        publishers = camera.publishers()
        return InputSituation(
            topic=camera.topic,
            publishers=len(publishers),
            offered=describe(publishers),
            requested=camera.reliability,
            transport=dds.transport_summary(),
            timeout=self._values['frame_timeout'],
            state=state,
            enabled=self._node.enabled,
            demanded=bool(self._outputs[name].demanded()),
        )

    def place_statuses(self, node: str) -> list[Any]:
        """Return what is to be said of bearings and distances, for the cameras that have any."""
        wanted = [
            n for n, outputs in self._outputs.items() if set(outputs.demanded()) & set(PLACES)
        ]
        return self.places.statuses(node, wanted)

    def close(self) -> None:
        """Stop the worker, remove the topics, release the engine."""
        self.deactivate()
        for camera in self._inputs.values():
            camera.destroy()
        for outputs in self._outputs.values():
            outputs.destroy()
        self.places.close()
        self.model.close()

    def _input(self, name: str) -> CameraInput:
        transport, reliability = self._values['transport'], self._values['image_reliability']
        depth = self._values['frame_queue']
        return CameraInput(self._node, name, transport, reliability, self._receive, depth)

    def _receive(self, camera: str, message: Any) -> None:
        """Put a message into its queue; runs on the executor's thread and must be quick."""
        wanted = self._node.enabled and bool(self._outputs[camera].demanded())
        self.mailbox.put(camera, message, wanted=wanted)

    def _run(self, frames: Sequence[Frame]) -> list[Detection | OodPerceptionError]:
        """Run frames with their horizons, where these are known beforehand."""
        return self.model.run(
            [self.places.with_horizon(f, self._inputs[f.camera].camera_info) for f in frames]
        )

    def _publish(self, waiting: Waiting, detection: Detection, times: FrameTimes) -> float | None:
        """Publish one frame's outputs; return its age in milliseconds by the node's clock."""
        header, outputs = waiting.message.header, self._outputs[waiting.camera]
        info = self._inputs[waiting.camera].camera_info
        scene = self.model.scene
        detection = self.places.without_small(detection, info, scene)
        tracked = self._tracker.update(detection)
        outputs.publish(
            tracked, header, info, times, lambda seen: self.places.look(seen, info, scene)
        )
        latency = self._latency(header)
        outputs.publish_debug(times, latency)
        return latency

    def _latency(self, header: Any) -> float | None:
        """Return the frame's age, None where stamp and node clock are of different worlds."""
        age = self._node.get_clock().now().nanoseconds - stamp_ns(header)
        return age / 1e6 if 0 <= age < _MOST_LATENCY_NS else None

    def _publish_infos(self) -> None:
        stamp = self._node.get_clock().now().to_msg()
        labels = dict(enumerate(self.model.classes))
        rate = self.model.settings.false_alarm_rate
        for outputs in self._outputs.values():
            outputs.publish_infos(labels, rate, stamp)


def _output_options(values: Mapping[str, Any]) -> OutputOptions:
    return OutputOptions(
        scale=values['output_scale'],
        full_scale=values['confidence_full_scale'],
        overlay=OverlayOptions(
            opacity=values['overlay.opacity'],
            boxes=values['overlay.boxes'],
            region=values['overlay.region'],
            legend=values['overlay.legend'],
        ),
        jpeg_quality=values['overlay.jpeg_quality'],
        scan=bool(values['camera.base_frame']),
        open_set_outside=values['open_set.outside'],
        top_share=values['image_score.top_share'],
        image_threshold=values['image_score.threshold'],
        depth=values['frame_queue'],
    )
