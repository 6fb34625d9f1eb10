# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
How the benchmark talks to a process that measures: one line of JSON per message.

The first line that a process gets is its task, its first answer is {"ready": facts} or
{"error": text}. Each further line is a number of runs, answered by stage -> list of milliseconds.
Cases wait for each other in turns, so that whatever slows the machine down for a while slows all
of them; a process for each keeps memory and thread pools of one out of the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from ood_perception.bench.machine import EnergyMeter
from ood_perception.errors import OodPerceptionError
from ood_perception.json_files import json_text
from ood_perception.types import JsonDict

PERCENTILES = (5, 50, 95, 99)
Times = dict[str, list[float]]
Measure = Callable[[int], Times]
# From a task: what is to be known before measuring, the measuring, what is known at the end.
Prepare = Callable[[JsonDict], tuple[JsonDict, Measure, Callable[[], JsonDict]]]


def serve(prepare: Prepare) -> int:
    """Be the measuring process: standard input and output carry the messages; exit status."""
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    try:
        facts, measure, finish = prepare(json.loads(sys.stdin.readline()))
        _say(answers, {'ready': facts})
        for line in sys.stdin:
            _say(answers, finish() if line.strip() == 'end' else measure(int(line)))
    except OodPerceptionError as error:
        _say(answers, {'error': str(error).replace('\n', ' ')})
        return 1
    return 0


def _say(stream: IO[str], message: JsonDict | Times) -> None:
    stream.write(json_text(message, indent=None) + '\n')
    stream.flush()


class Worker:
    """
    A measuring process, seen from the benchmark. Use as a context manager.

    rounds: per round stage -> milliseconds. joules: per round and run, where the machine tells.
    slow: one run a round is enough.
    """

    def __init__(
        self,
        name: str,
        module: str,
        task: JsonDict,
        environment: Mapping[str, str] | None = None,
        slow: bool = False,
    ) -> None:
        """Start the process; it gets its task by `ready`."""
        self.name, self.slow = name, slow
        self.rounds: list[Times] = []
        self.joules: list[float] = []
        self.error = ''
        self._process = subprocess.Popen(
            [sys.executable, '-m', module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._task = task

    def ready(self) -> JsonDict:
        """Hand over the task, wait for the process; return its facts, {} with `error` set."""
        answer = self._ask(json.dumps(self._task))
        facts: JsonDict = answer.get('ready', {})
        return facts

    def measure(self, runs: int, keep: bool = True) -> None:
        """Measure some runs and keep their times as one round; nothing after an error."""
        answer = self._ask(str(runs))
        if keep and not self.error:
            self.rounds.append(answer)

    def finish(self) -> JsonDict:
        """Return what the process knows at its end."""
        return self._ask('end')

    def times(self) -> Times:
        """Return all kept times per stage."""
        names = self.rounds[0] if self.rounds else {}
        return {name: [ms for one in self.rounds for ms in one[name]] for name in names}

    def _ask(self, line: str) -> JsonDict:
        if self.error:
            return {}
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(line + '\n')
            self._process.stdin.flush()
            answer: JsonDict = json.loads(self._process.stdout.readline() or '{}')
        except (BrokenPipeError, ValueError):
            answer = {}
        if not answer:
            answer = {'error': f'the process of {self.name} ended ({self._process.wait(60)})'}
        self.error = answer.get('error', '')
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def take_turns(workers: Sequence[Worker], runs: int, warmup: int, rounds: int = 7) -> None:
    """Warm up, then measure all workers in `rounds` turns, at least `runs` runs each."""
    for worker in workers:
        if warmup:
            worker.measure(1 if worker.slow else warmup, keep=False)
    rounds = min(rounds, runs)
    meter = EnergyMeter()
    for _ in range(rounds):
        for worker in workers:
            count = 1 if worker.slow else -(-runs // rounds)
            meter.since_last()
            worker.measure(count)
            joules = meter.since_last()
            if joules is not None:
                worker.joules.append(joules / count)


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """Return p5, p50, p95 and p99 of (N,) values, N >= 1."""
    return {f'p{p}': float(np.percentile(np.asarray(values), p)) for p in PERCENTILES}


def ratio(
    numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]
) -> dict[str, float]:
    """
    Return the ratio of two things measured in the same rounds: median, least, greatest.

    numerators, denominators: per round the times; of each round the medians are compared, so
    that what slows a whole round down cancels.
    """
    rounds = [
        float(np.median(a) / np.median(b)) for a, b in zip(numerators, denominators, strict=True)
    ]
    return {'median': float(np.median(rounds)), 'least': min(rounds), 'greatest': max(rounds)}
