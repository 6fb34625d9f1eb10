# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Compiled stages, cached only for the same graph, runtime, device and use.

They are kept on disk, or shared by the engines of one process: another class set needs another
head, never another backbone, and the engine that is compiled beside the running one takes the same
compiled backbone, with infer requests of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ood_perception.errors import OodPerceptionError
from ood_perception.files import cache_root, locked, make_file, sweep
from ood_perception.types import JsonDict

Key = Mapping[str, str]
_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()
_ALIVE: WeakValueDictionary[tuple[str, ...], Any] = WeakValueDictionary()


def key_path(key: Key) -> Path:
    """Return the place of a compiled stage; key: everything that it depends on."""
    text = json.dumps(dict(key), sort_keys=True)
    return cache_root() / 'compiled' / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.blob'


def load(key: Key) -> bytes | None:
    """Return a compiled stage, None where there is none or it is damaged, which is a warning."""
    path = key_path(key)
    try:
        described, blob = _sidecar(path).read_bytes(), path.read_bytes()
    except FileNotFoundError:
        return None  # never made, or its maker was killed before it was whole
    except OSError as error:
        _LOG.warning('%s cannot be read (%s); it is compiled again', path, error)
        return None
    damaged = _damage(key, path, described, blob)
    if damaged:
        _LOG.warning('%s; it is compiled again', damaged)
        return None
    return blob


def metadata_of(key: Key) -> JsonDict:
    """Return what was stored beside a compiled stage that `load` or `obtain` just returned."""
    try:
        facts: JsonDict = json.loads(_sidecar(key_path(key)).read_bytes())['facts']
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return facts


def obtain(
    key: Key, build: Callable[[], tuple[bytes, JsonDict]], *, again: bool = False
) -> tuple[bytes, bool]:
    """
    Return the compiled stage and whether it was built now; among all processes one builds.

    build: returns the blob and facts about it as plain JSON values; what it raises goes through.
    again: build and replace what is cached. The other processes wait for it. When it is killed
    the next one builds; nobody reads half a file. A cache that cannot be written is no error.
    """
    path = key_path(key)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except OodPerceptionError as error:
            _LOG.warning('the compiled engine is not kept for the next start: %s', error)
            return build()[0], True
        kept = None if again else load(key)
        if kept is not None:
            return kept, False
        blob, facts = build()
        try:
            _write_entry(key, blob, facts)
        except OSError as error:
            _LOG.warning('the compiled engine is not kept for the next start: %s', error)
        return blob, True


def _write_entry(key: Key, blob: bytes, facts: JsonDict) -> None:
    """Write blob and sidecar, each whole or not at all; hold the lock."""
    path = key_path(key)
    content = {'key': dict(key), 'sha256': _digest(blob), 'facts': facts}
    sidecar = {**content, 'sidecar_sha256': _digest_of_sidecar(content)}
    text = json.dumps(sidecar, indent=1, sort_keys=True)
    sweep(path.parent, f'.{path.stem}')
    make_file(path, lambda file: file.write_bytes(blob))
    make_file(_sidecar(path), lambda file: file.write_bytes(text.encode()))


def _damage(key: Key, path: Path, described: bytes, blob: bytes) -> str:
    """Return what is wrong with an entry, '' where it is whole."""
    sidecar = _sidecar(path)
    try:
        content = json.loads(described)
        found = content.pop('sidecar_sha256')
        wanted, blob_sha256 = content['key'], content['sha256']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f'{sidecar} is damaged ({error!r})'
    if found != _digest_of_sidecar(content) or wanted != dict(key):
        return f'{sidecar} is damaged: it is not what was stored'
    if _digest(blob) != blob_sha256:
        return f'{path} is damaged: it has another sha256 than {sidecar.name} says'
    return ''


def _digest_of_sidecar(content: JsonDict) -> str:
    return _digest(json.dumps(content, sort_keys=True).encode())


def _sidecar(path: Path) -> Path:
    return path.with_suffix('.json')


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


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
