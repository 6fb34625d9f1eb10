# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Compiled stages that engines of one process share.

Another class set needs another head, never another backbone: the engine that is compiled beside
the one at work takes the same compiled backbone, with infer requests of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

_LOCK = threading.Lock()
_ALIVE: WeakValueDictionary[tuple[str, ...], Any] = WeakValueDictionary()


def shared(key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """
    Return what another engine of this process made for the same key, else make it.

    It is held only as long as an engine holds it. Callers must be able to use it from several
    threads.
    """
    with _LOCK:  # whoever comes second waits for the first instead of compiling as well
        found = _ALIVE.get(key)
        if found is None:
            found = make()
            _ALIVE[key] = found
        return found


def identity(model: Path, data: str) -> str:
    """Return what tells a graph file and its external data (a name beside it) from others."""
    files = [model.resolve(), *([model.resolve().parent / data] if data else [])]
    states = [(path, path.stat()) for path in files]
    return ' '.join(f'{path}:{state.st_size}:{state.st_mtime_ns}' for path, state in states)
