# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An unknown bundle's first load: in a process of its own, with limits, which may die."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ood_perception import errors
from ood_perception.bundle.manifest import MANIFEST_NAME
from ood_perception.bundle.store import Bundle, shipped_bundles
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.files import CACHE_ENV, cache_root, locked, make_file, sha256_of

_LOG = logging.getLogger(__name__)
RULES = 2
"""Raised where graph_rules refuse more: what was tried by older rules is tried again."""
MADE_HERE = 'made'
_EVERY = 0.02  # seconds between two looks at the process
_MOST_ANSWER = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What a trial may take: seconds, and bytes of memory beside four times the weights'."""

    seconds: float = 300.0
    memory: int = 4 << 30


BUILDING = Limits(3600.0, 16 << 30)
"""TensorRT searches for the fastest kernels of every layer: minutes, once."""


def try_first(bundle: Bundle, options: EngineOptions, limits: Limits | None = None) -> None:
    """
    Have an unknown bundle checked, compiled and run in a process of its own; once, by its sha256.

    Known are the bundles that come with the package, those that this user's trainer packed, and
    those that kept their golden vectors in such a process before, with the same runtime. Raises
    what is wrong with the bundle; EngineError where the process ended, took too long or too much.
    """
    if is_known(bundle, options.runtime):
        return
    if limits is None:
        limits = BUILDING if options.runtime == 'tensorrt' else Limits()
    _LOG.info('bundle %s is unknown: tried in a process of its own, once', bundle.manifest.name)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OodPerceptionError):  # without a cache it is tried every time
            stack.enter_context(locked(_mark(bundle.sha256, options.runtime)))
        if not is_known(bundle, options.runtime):  # another process tried it meanwhile
            _run_trial(bundle, options, limits)
            remember(bundle.sha256, options.runtime)


def is_known(bundle: Bundle, runtime: str) -> bool:
    """Return whether a bundle needs no trial, see try_first."""
    marks = (_mark(bundle.sha256, kind) for kind in (runtime, MADE_HERE))
    shipped = (sha256_of(path / MANIFEST_NAME) for path in shipped_bundles().values())
    return any(mark.is_file() for mark in marks) or bundle.sha256 in shipped


def remember(sha256: str, runtime: str = MADE_HERE) -> None:
    """Note in the cache that a bundle, by its manifest's sha256, needs no trial any more."""
    try:
        make_file(_mark(sha256, runtime), lambda file: file.touch())
    except OSError as error:
        _LOG.warning('the trial of bundle %s is not kept for the next start: %s', sha256, error)


def _mark(sha256: str, runtime: str) -> Path:
    return cache_root() / 'tried' / f'{sha256}-{runtime}-{RULES}'


def _run_trial(bundle: Bundle, options: EngineOptions, limits: Limits) -> None:
    """Run trial_process and raise what it says, or how it ended."""
    places = {'root': str(bundle.root.absolute()), 'stage_root': str(bundle.stage_root.absolute())}
    task = {**places, 'sha256': bundle.sha256, 'options': asdict(options), 'parent': os.getpid()}
    weights = sum(file.stat().st_size for file in _stage_files(bundle))
    limits = Limits(limits.seconds, limits.memory + 4 * weights)
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as answer:
        process = _started(task, told, answer)
        try:
            ended = _watched(process, limits)
        finally:
            process.kill()
            process.wait()
        error = _answer(answer)
        if error is None:
            told.seek(max(0, told.seek(0, os.SEEK_END) - 2000))
            last = told.read().decode(errors='replace').strip().splitlines()[-1:]
            raise EngineError(
                f'bundle {bundle.root} is not used: its trial {ended or _end(process, last)}. '
                'A bundle of the trainer does not do that: ask whoever made it; if you trust '
                'them, compile_bundle --trust loads it here without a trial'
            )
    kind = getattr(errors, error[0], EngineError) if error[0] else None
    if kind is not None:
        raise kind(error[1])


def _stage_files(bundle: Bundle) -> Iterator[Path]:
    for stage in bundle.manifest.stages:
        yield bundle.stage_path(stage)
        if stage.external_data:
            yield bundle.stage_root / stage.external_data


def _started(task: object, told: IO[bytes], answer: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start trial_process with this process's own import path: never the working directory's."""
    code = (
        f'import sys; sys.path[:] = {sys.path!r}; '
        f'from ood_perception.engines.trial_process import main; main({answer.fileno()})'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=told,
        pass_fds=[answer.fileno()],
        env={**os.environ, CACHE_ENV: str(cache_root().absolute())},
    )
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
    return process


def _watched(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Wait for the process; return why it must not go on, '' where it ended by itself."""
    start = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - start > limits.seconds:
            return f'did not end within {limits.seconds:g} s'
        if _memory(process.pid) > limits.memory:
            return f'took more than {limits.memory / (1 << 30):.1f} GiB of memory'
        time.sleep(_EVERY)
    return ''


def _memory(pid: int) -> int:
    """Return a process's bytes in memory, 0 where the system does not tell."""
    try:
        pages = Path(f'/proc/{pid}/statm').read_text(encoding='ascii').split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def _answer(file: IO[bytes]) -> tuple[str, str] | None:
    """Return class and text of the error, ('', '') for none; None where it did not get there."""
    file.seek(0)
    try:
        name, text = json.loads(file.read(_MOST_ANSWER))
    except ValueError:
        return None
    return (str(name), str(text))


def _end(process: subprocess.Popen[bytes], last: list[str]) -> str:
    """Return how a process ended that gave no answer."""
    code = process.returncode
    if code >= 0:
        return f'ended with status {code} ({"".join(last)})'
    try:
        return f'was ended by {signal.Signals(-code).name}'
    except ValueError:
        return f'was ended by signal {-code}'
