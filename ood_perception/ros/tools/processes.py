# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's child processes: started with the shipped DDS profile, always ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ood_perception.errors import OodPerceptionError
from ood_perception.ros import dds

_GRACE = 8.0
_TAIL = 12
_STAGES = 6


def say(stage: int, text: str) -> None:
    """Print that a stage begins."""
    print(f'[{stage}/{_STAGES}] {text}', flush=True)


def detail(text: str) -> None:
    """Print a line of the stage under way."""
    print(f'      {text}', flush=True)


def graph_environment() -> dict[str, str]:
    """Return this process's environment with the DDS profile and a ROS graph of the demo's own."""
    variables = {**os.environ, **dds.environment(dds.LARGE_IMAGES)}
    # Other machines and other graphs of this one stay out, unless the user chose a domain.
    variables.setdefault('ROS_DOMAIN_ID', str(40 + os.getpid() % 60))
    variables.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return variables


class Child:
    """A module run as a process, its output in a log file. Use as a context manager."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self.module, self.log = module, log
        with log.open('wb') as stream:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                env=graph_environment(),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise OodPerceptionError, with the end of its log, if it has failed."""
        if self.exit_code:
            raise OodPerceptionError(
                f'{self.module} ended with status {self.exit_code}:\n{self.tail()}'
            )

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'    {line}' for line in lines[-_TAIL:])

    def end(self) -> None:
        """Interrupt it, and kill it when that does not help."""
        if self.exit_code is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
