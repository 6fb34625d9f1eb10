# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The process that loads an unknown bundle first, see engines.trial; its stdin is the task."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import BundleError, OodPerceptionError
from ood_perception.types import JsonDict

_PR_SET_PDEATHSIG = 1


def main(answer: int) -> None:
    """Try the bundle; write the error's class and text, or two empty ones, to file `answer`."""
    _be_expendable()
    task = json.load(sys.stdin)
    if os.getppid() != task['parent']:  # it was killed before this process would end with it
        os._exit(1)
    error = ('', '')
    try:
        _try(task)
    except OodPerceptionError as raised:
        error = (type(raised).__name__, str(raised)[:4000])
    os.write(answer, json.dumps(error).encode())
    os._exit(0)  # a runtime's own end is no part of the trial


def _try(task: JsonDict) -> None:
    """Check the graphs, compile them, compare with the golden vectors, run the largest batch."""
    options = EngineOptions(**task['options'])
    options = dataclasses.replace(options, compiled_classes=tuple(options.compiled_classes))
    bundle = load_bundle(task['root'])
    if bundle.sha256 != task['sha256']:
        raise BundleError(f'{bundle.root} changes while it is loaded: copy the bundle again')
    bundle = dataclasses.replace(bundle, stage_root=Path(task['stage_root']))
    check_graphs(bundle)
    engine, _ = checked_engine(bundle, options)
    with engine:
        size = bundle.manifest.input
        images = np.zeros((options.max_batch, size.height, size.width, 3), np.uint8)
        engine.run(images, engine.class_vector(engine.compiled_classes))


def _be_expendable() -> None:
    """End with the parent, leave no core, and be the first to go where memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000', encoding='ascii')
