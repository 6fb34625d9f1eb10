# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Who works: one worker in this process, or actors on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import platform
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from ood_perception.errors import ConfigError, EngineError, OodPerceptionError, required
from ood_perception.requirements import install_command
from ood_perception.types import Tell

from .ledger import DONE, FAILED, Entry, Item, Ledger

LOCAL = 'local'
MOST_ATTEMPTS = 3
_DIED = 'its worker died (memory ran out, or it was killed)'

Files = Mapping[str, bytes]
Attempts = Iterator[tuple[Any, 'Outcome']]


@dataclass(frozen=True)
class Cluster:
    """
    A Ray cluster.

    address: LOCAL = one on this machine for this run. workers: 0 = as many as fit. threads: CPUs
    of each. gpu: whether each takes one.
    """

    address: str
    workers: int = 0
    threads: int = 1
    gpu: bool = False


def add_cluster(group: argparse._ArgumentGroup) -> None:
    """Add --ray and --workers, see cluster_of."""
    group.add_argument(
        '--ray', metavar='ADDRESS', help=f'of a Ray cluster; {LOCAL}: one on this machine'
    )
    group.add_argument('--workers', type=int, default=0, help='engines at once; 0: as many as fit')


def cluster_of(options: argparse.Namespace, engine: str, threads: int) -> Cluster | None:
    """Return the cluster that was asked for, None for this process; engine: of each worker."""
    if options.workers < 0:
        raise ConfigError(f'--workers {options.workers}: give 0 or more')
    if not options.ray:
        return None
    return Cluster(options.ray, options.workers, max(1, threads), 'tensorrt' in engine)


@dataclass(frozen=True)
class Outcome:
    """
    One attempt at an item.

    files: the results by name, {} where it failed. reason: why it failed. again: another attempt
    may go better. hopeless: no item will go better: the worker cannot work at all. attempts: so
    far. worker: host and process.
    """

    files: Files = field(default_factory=dict)
    reason: str = ''
    again: bool = False
    hopeless: bool = False
    attempts: int = 1
    worker: str = ''
    seconds: float = 0.0


class Worker(ABC):
    """Opens what it needs once; an item never ends it. work: what is done with every item."""

    def __init__(self, work: Any) -> None:
        self.work = work
        self._opened: Any = None
        self._stack = ExitStack()

    @abstractmethod
    def open(self, stack: ExitStack) -> Any:
        """Return what `results` works with; the stack closes it at the end."""

    @abstractmethod
    def results(self, opened: Any, item: Any) -> Files:
        """Return an item's results; an OodPerceptionError is the item's own fault."""

    def attempt(self, item: Any) -> Outcome:
        """Do an item; whatever goes wrong is the outcome's reason."""
        start, who = time.monotonic(), f'{platform.node()}:{os.getpid()}'
        try:
            if self._opened is None:
                self._opened = self.open(self._stack)
        except OodPerceptionError as error:
            return Outcome(reason=f'{platform.node()}: {error}', hopeless=True)
        try:
            outcome = Outcome(self.results(self._opened, item))
        except OodPerceptionError as error:  # as bad the next time
            outcome = Outcome(reason=str(error))
        except Exception as error:  # a network, a disk; or a fault of ours, of this one alone
            outcome = Outcome(reason=f'{type(error).__name__}: {error}', again=True)
        return replace(outcome, worker=who, seconds=time.monotonic() - start)

    def close(self) -> None:
        """Close what was opened."""
        self._stack.close()


@dataclass(frozen=True)
class Crew:
    """
    Who does what.

    kind: of workers. work: see Worker. unit: what an item is called. keep: writes an item's
    results, whole or not at all. cluster: None = one worker, in this process.
    """

    kind: Callable[[Any], Worker]
    work: Any
    unit: str
    keep: Callable[[Any, Files], None]
    cluster: Cluster | None = None


def work_through(ledger: Ledger, items: Sequence[Item], crew: Crew, tell: Tell) -> None:
    """
    Do what the ledger lacks, and add it there; an item that fails is told, and tried again by the
    next call.

    Another worker takes the place of one that dies, and the item is tried again, by any. Raises
    DependencyError without Ray, ConfigError for a cluster that is not there, EngineError where a
    worker cannot work at all.
    """
    todo = [one for one in items if not ledger.is_done(one)]
    tell(f'{len(items)} {crew.unit}s, {len(items) - len(todo)} of them done before')
    if not todo:
        return
    attempts = _on_ray(crew, crew.cluster, todo, tell) if crew.cluster else _here(crew, todo)
    # disable=None: shown on a terminal alone
    for item, outcome in tqdm(
        attempts, total=len(todo), unit=crew.unit, leave=False, disable=None
    ):
        if not outcome.reason:
            crew.keep(item, outcome.files)
        entry = Entry(
            place=item.place,
            identity=item.identity,
            key=ledger.key,
            status=FAILED if outcome.reason else DONE,
            reason=outcome.reason,
            attempts=outcome.attempts,
            worker=outcome.worker,
            seconds=round(outcome.seconds, 3),
        )
        ledger.add(item, entry)
        if outcome.reason:
            tell(f'{item.place}: {outcome.reason}')


def _here(crew: Crew, items: Sequence[Item]) -> Attempts:
    worker = crew.kind(crew.work)
    try:
        for item in items:
            for number in range(1, MOST_ATTEMPTS + 1):
                outcome = _hopeful(replace(worker.attempt(item), attempts=number))
                if not outcome.again:
                    break
            yield item, outcome
    finally:
        worker.close()


def _on_ray(crew: Crew, cluster: Cluster, items: Sequence[Item], tell: Tell) -> Attempts:
    ray = required('ray', f'--ray needs Ray: {install_command("fleet")}')
    try:
        # Ray hides GPUs from who does not ask for one
        needs = {'CPU': cluster.threads, 'GPU': int(cluster.gpu)}
        room = _join(ray, cluster, needs)
        count = min(cluster.workers or room, room, len(items))
        tell(f'{count} workers on the Ray cluster {cluster.address}')
        kind = ray.remote(num_cpus=needs['CPU'], num_gpus=needs['GPU'])(crew.kind)
        yield from _rounds(ray, lambda: kind.remote(crew.work), count, items)
    finally:
        ray.shutdown()


def _join(ray: Any, cluster: Cluster, needs: Mapping[str, int]) -> int:
    """Connect to a cluster, or start one; return how many workers it has room for."""
    local: dict[str, Any] = {}
    if cluster.address == LOCAL:
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
        local = {'include_dashboard': False}
        if cluster.workers:
            local['num_cpus'] = cluster.workers * cluster.threads
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level='warning', **local)
    except Exception as error:  # a bare one where a busy machine is slower than Ray waits
        raise ConfigError(f'--ray {cluster.address}: {error}') from error
    there = ray.cluster_resources()
    room = min(int(there.get(kind, 0)) // count for kind, count in needs.items() if count)
    if room < 1:
        asked = ' and '.join(f'{count} {kind}' for kind, count in needs.items() if count)
        raise ConfigError(f'--ray {cluster.address} has no room for a worker of {asked}')
    return room


def _rounds(ray: Any, start: Callable[[], Any], count: int, items: Sequence[Item]) -> Attempts:
    """Give every free actor the next item until none is left."""
    waiting = deque((item, 1) for item in items)
    running: dict[Any, tuple[Any, Item, int]] = {}

    def give(actor: Any) -> None:
        if waiting:
            item, attempt = waiting.popleft()
            running[actor.attempt.remote(item)] = actor, item, attempt

    for _ in range(count):
        give(start())
    while running:
        (done,), _ = ray.wait([*running], num_returns=1)
        actor, item, attempt = running.pop(done)
        try:
            outcome = _hopeful(ray.get(done))
        except ray.exceptions.RayActorError:
            outcome, actor = Outcome(reason=_DIED, again=True), start()
        if retry := outcome.again and attempt < MOST_ATTEMPTS:
            waiting.append((item, attempt + 1))
        give(actor)
        if not retry:
            yield item, replace(outcome, attempts=attempt)


def _hopeful(outcome: Outcome) -> Outcome:
    if outcome.hopeless:
        raise EngineError(outcome.reason)
    return outcome
