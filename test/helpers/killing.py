# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that are killed at random moments, started by fork: their imports are paid once."""

import importlib
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

from limits import HANGS

ROUNDS = int(os.environ.get('OOD_KILLS', '2'))  # more of them: make kills ROUNDS=100
_SERVER = multiprocessing.get_context('forkserver')
_IMPORTED = ['numpy', 'cv2', 'torch', 'scipy', 'rclpy']


def _run(module, function, words, folder, environment):
    """Run a program in the folder; what it prints is of no interest."""
    os.environ.update(environment)
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    sys.exit(getattr(importlib.import_module(module), function)(words))


def killed_at_random(program, words, whole, caches=(), ends=True):
    """
    Kill a program ROUNDS times, each time over a whole result, which has to be whole afterwards.

    program: (module, function), which takes the words. whole: returns what the result in the
    working directory is worth, always the same, or raises where it is not whole. caches: folders
    that every second round begins without; the others go on from what the killed one has left.
    ends: whether the program ends by itself; else whole() returns once it has done its work.

    At last the program has to do its work once more, and nothing of the killed ones is left.
    """
    _SERVER.set_forkserver_preload(_IMPORTED)
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        first = _done(_started(program, words), whole, ends)
        seconds.append(time.monotonic() - start)
    draw, killed = random.Random(0), 0
    while killed < ROUNDS:
        afresh = killed % 2 == 0
        for cache in caches if afresh else ():
            shutil.rmtree(cache, ignore_errors=True)
        process = _started(program, words)
        process.join(draw.random() * seconds[0 if afresh else 1])
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), f'ended by itself with status {process.exitcode}'
        killed += process.exitcode == -9
        assert not ends or whole() == first, f'after {killed} kills'
    assert _done(_started(program, words), whole, ends) == first
    left = [path for path in Path().rglob('*') if '.tmp-' in path.name]
    assert not left, f'of killed runs: {left}'


def _started(program, words):
    given = (*program, [str(word) for word in words], os.getcwd(), dict(os.environ))
    process = _SERVER.Process(target=_run, args=given)
    process.start()
    return process


def _done(process, whole, ends):
    """Return what whole() does once the program has done its work, and has ended."""
    if ends:
        process.join(HANGS)
        assert process.exitcode == 0
        return whole()
    try:
        return whole()
    finally:
        process.kill()
        process.join()
