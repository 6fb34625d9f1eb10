# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Who works: one worker in this process, or actors on a Ray cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ood_perception.errors import ConfigError, EngineError, required
from ood_perception.requirements import install_command
from ood_perception.types import Tell

from .recordings import Recording
from .worker import Outcome, Work, Worker

LOCAL = 'local'
MOST_ATTEMPTS = 3
_DIED = 'its worker died (memory ran out, or it was killed)'


@dataclass(frozen=True)
class Cluster:
    """address: of a Ray cluster, LOCAL = one on this machine for this run. workers: 0 = all."""

    address: str
    workers: int = 0


@dataclass
class _Task:
    recording: Recording
    attempts: int = 0


def in_process(
    work: Work, recordings: Sequence[Recording]
) -> Iterator[tuple[Recording, Outcome, int]]:
    """Yield each recording with its outcome and the number of attempts, one after the other."""
    worker = Worker(work)
    if problem := worker.ready():
        raise EngineError(problem)
    try:
        for recording in recordings:
            outcome, attempts = worker.evaluate(recording), 1
            while outcome.again and attempts < MOST_ATTEMPTS:
                outcome, attempts = worker.evaluate(recording), attempts + 1
            yield recording, outcome, attempts
    finally:
        worker.close()


def on_ray(
    work: Work, recordings: Sequence[Recording], cluster: Cluster, tell: Tell
) -> Iterator[tuple[Recording, Outcome, int]]:
    """
    Yield each recording with its outcome and the number of attempts, as they are done.

    Another worker takes the place of one that dies, and the recording is tried again, by any.
    Raises DependencyError without Ray, ConfigError for a cluster that is not there, EngineError
    where a worker cannot open the bundle.
    """
    ray = required('ray', f'--ray needs Ray: {install_command("fleet")}')
    threads = max(1, int(work.values.get('threads') or 1))
    try:
        # Ray hides GPUs from who does not ask for one
        needs = {'CPU': threads, 'GPU': int('tensorrt' in str(work.values.get('engine', '')))}
        room = _join(ray, cluster, needs)
        count = min(cluster.workers or room, room, len(recordings))
        tell(f'{count} workers on the Ray cluster {cluster.address}')
        kind = ray.remote(num_cpus=needs['CPU'], num_gpus=needs['GPU'])(Worker)
        own = replace(work, values={**work.values, 'threads': threads})
        yield from _rounds(ray, lambda: kind.remote(own), count, recordings)
    finally:
        ray.shutdown()


def _join(ray: Any, cluster: Cluster, needs: Mapping[str, int]) -> int:
    """Connect to a cluster, or start one; return how many workers it has room for."""
    local: dict[str, Any] = {}
    if cluster.address == LOCAL:
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
        local = {'include_dashboard': False}
        if cluster.workers:
            local['num_cpus'] = cluster.workers * needs['CPU']
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level='warning', **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f'--ray {cluster.address}: {error}') from error
    there = ray.cluster_resources()
    room = min(int(there.get(kind, 0)) // count for kind, count in needs.items() if count)
    if room < 1:
        asked = ' and '.join(f'{count} {kind}' for kind, count in needs.items() if count)
        raise ConfigError(f'--ray {cluster.address} has no room for a worker of {asked}')
    return room


def _rounds(
    ray: Any, start: Callable[[], Any], count: int, recordings: Sequence[Recording]
) -> Iterator[tuple[Recording, Outcome, int]]:
    """Give every free actor the next recording until none is left."""
    waiting = deque(_Task(recording) for recording in recordings)
    opening: dict[Any, Any] = {}
    running: dict[Any, tuple[Any, _Task]] = {}

    def open_one() -> None:
        actor = start()
        opening[actor.ready.remote()] = actor

    for _ in range(count):
        open_one()
    while opening or running:
        (done,), _ = ray.wait([*opening, *running], num_returns=1)
        if done in opening:
            actor = opening.pop(done)
            if problem := _result(ray, done, _DIED):
                raise EngineError(problem)
        else:
            actor, task = running.pop(done)
            task.attempts += 1
            outcome = _result(ray, done, None)
            if outcome is None:  # dead
                outcome = Outcome(reason=_DIED, again=True)
                open_one()
                actor = None
            if outcome.again and task.attempts < MOST_ATTEMPTS:
                waiting.append(task)
            else:
                yield task.recording, outcome, task.attempts
        if waiting and actor is not None:
            task = waiting.popleft()
            running[actor.evaluate.remote(task.recording)] = actor, task


def _result(ray: Any, done: Any, dead: Any) -> Any:
    """Return what a call gave; `dead` where its actor died."""
    try:
        return ray.get(done)
    except ray.exceptions.RayActorError:
        return dead
