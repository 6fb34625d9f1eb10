# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What happens when frames are no longer finished: it is said, then worker and engine are new."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from ood_perception.ros.diagnostics import EngineStatus
from ood_perception.ros.worker import Worker

MOST_RESTARTS = 3
# After so many seconds of health the restarts before do not count any more.
_FORGIVEN = 600.0


class Watchdog:
    """
    Watches a worker that may hang, die or fail without end; `check` is called once a second.

    renew: makes a new engine and a new worker in place of the given one. log: called with
    severity and text. After MOST_RESTARTS frames are no longer taken, which diagnostics say until
    the node is configured again.
    """

    def __init__(self, renew: Callable[[Worker], None], log: Callable[[str, str], None]) -> None:
        self.problem = ''
        self.restarts = 0
        self._renew, self._log = renew, log
        self._last = 0.0
        self._given_up = False
        self._thread: threading.Thread | None = None

    def check(self, worker: Worker | None, limit: float) -> None:
        """Restart after `limit` seconds without a finished frame, see Worker.problem; say half."""
        if self._given_up or (self._thread is not None and self._thread.is_alive()):
            return
        self.problem = worker.problem(limit, 0.5) if worker else ''
        if worker is None:  # not active
            return
        now, problem = time.monotonic(), worker.problem(limit)
        if not problem or (self.restarts and now - self._last < limit):
            return
        if now - self._last > _FORGIVEN:
            self.restarts = 0
        worker.abandon(problem)
        self._given_up = self.restarts == MOST_RESTARTS
        if self._given_up:
            worker.queue.close()
            self.problem = (
                f'{problem}; {self.restarts} restarts did not help, frames are skipped: '
                'deactivate, clean up and configure again, or choose another engine'
            )
            self._log('error', self.problem)
            return
        self.restarts, self._last = self.restarts + 1, now
        self.problem = f'{problem}; restart {self.restarts} of {MOST_RESTARTS} of the engine'
        self._thread = threading.Thread(
            target=self._restart, args=(worker, self.problem), name='restart', daemon=True
        )
        self._thread.start()

    def _restart(self, worker: Worker, problem: str) -> None:
        self._log('error', problem)
        try:
            self._renew(worker)
        except Exception as error:  # tried again by the next check
            self._log('error', f'the engine could not be restarted: {error}')
            return
        self.problem = ''
        self._log('info', f'engine restarted in {time.monotonic() - self._last:.1f} s')

    def status(self, engine: EngineStatus) -> EngineStatus:
        """Return the engine's status with what the watchdog has to say of it."""
        values = {**engine.values, 'restarts': str(self.restarts)}
        if self.problem:
            return EngineStatus('failed', self.problem, values)
        return dataclasses.replace(engine, values=values)
