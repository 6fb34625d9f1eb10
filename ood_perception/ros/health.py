# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: diagnostics once a second, on a thread that a busy executor does not stop."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from ood_perception.ros.diagnostics import (
    EngineStatus,
    camera_status,
    diagnostic_array,
    engine_status,
    outputs_status,
    timing_status,
)
from ood_perception.ros.frame_queue import Counters
from ood_perception.ros.outputs import missing_outputs

PERIOD = 1.0
# A node that was killed is remembered by the graph for 20 seconds.
TWIN_SECONDS = 30.0


class Health:
    """
    Publishes `/diagnostics` from the node's birth to its end, configured or not.

    A thread instead of a timer of the executor: while a transition loads weights and compiles,
    the executor may be busy for minutes, and that is when people look.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name()
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._calibration = node.create_publisher(DiagnosticArray, '~/calibration_health', 1)
        self._before: dict[str, Counters] = {}
        self._engine = EngineStatus()
        self._alone = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name='diagnostics', daemon=True)
        self._thread.start()

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Say 'compiling' inside the block, 'unconfigured' after it (a session says more)."""
        self._engine = EngineStatus('compiling', 'loading the bundle and compiling the engine')
        try:
            yield
        finally:
            self._engine = EngineStatus()

    def progress(self, text: str) -> None:
        """Say what takes long while the node is configured."""
        self._engine = EngineStatus('compiling', text)
        self._node.log('info', text)

    def failed(self, reason: str) -> None:
        """Say that configuring failed, until it is tried again."""
        self._engine = EngineStatus('failed', reason)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(PERIOD):
            self.publish()

    def publish(self) -> None:
        """Publish all statuses now."""
        try:
            statuses = self._statuses()
            stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(diagnostic_array(stamp, statuses))
            if session := self._node.session:
                health = session.calibration_statuses(self._name)
                self._calibration.publish(diagnostic_array(stamp, health))
        except Exception as error:
            # A camera or topic may vanish under our hands in a transition: the next beat counts.
            if not self._stop.is_set():
                self._node.log('warning', f'diagnostics were not published: {error!r}')

    def _twin(self) -> str:
        """Return what is to be said of another node of this name, '' where there is none."""
        names = self._node.get_node_names_and_namespaces()
        now, found = time.monotonic(), [f'{space.rstrip("/")}/{name}' for name, space in names]
        if found.count(self._name) < 2:
            self._alone = now
        if now - self._alone < TWIN_SECONDS:
            return ''
        return f'another node is called {self._name}, on the same topics: rename one of them'

    def _statuses(self) -> list[Any]:
        session = self._node.session
        if session is None:
            return [engine_status(self._name, self._engine)]
        session.watch()
        statuses = []
        for report in session.queue.reports():
            seen = session.input_status(report.name, self._node.state_label)
            recent = report.counters.since(self._before.get(report.name, Counters()))
            self._before[report.name] = report.counters
            statuses.append(camera_status(self._name, report, recent, seen))
        statuses += session.range_statuses(self._name)
        statuses += session.calibration_statuses(self._name)
        statuses.append(timing_status(self._name, session.window.summary()))
        statuses.append(outputs_status(self._name, session.subscribed(), missing_outputs()))
        engine = session.watchdog.status(session.model.status())
        said = '; '.join(filter(None, (engine.message, self._twin())))
        return [*statuses, engine_status(self._name, dataclasses.replace(engine, message=said))]
