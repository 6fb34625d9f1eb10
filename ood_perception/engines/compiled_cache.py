# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled stages kept on disk, found again only for the same graph, runtime, device and use."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from ood_perception.bundle.cache import cache_root, locked, make_file, sweep
from ood_perception.errors import OodPerceptionError

Key = Mapping[str, str]
_LOG = logging.getLogger(__name__)


def key_path(key: Key) -> Path:
    """Return the place of a compiled stage; key: everything that it depends on."""
    text = json.dumps(dict(key), sort_keys=True)
    return cache_root() / 'compiled' / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.blob'


def load(key: Key) -> bytes | None:
    """Return a compiled stage; None where there is none, or it is not what was stored."""
    path = key_path(key)
    try:
        described = json.loads(_sidecar(path).read_text(encoding='utf-8'))
        blob = path.read_bytes()
        if described['key'] == dict(key) and described['sha256'] == _digest(blob):
            return blob
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not whole: the stage is compiled again
    return None


def store(key: Key, blob: bytes) -> None:
    """Keep a compiled stage, whole or not at all; a cache that cannot be written is no error."""
    path = key_path(key)
    sidecar = {'key': dict(key), 'sha256': _digest(blob)}
    text = json.dumps(sidecar, indent=1, sort_keys=True)
    try:
        with locked(path):
            sweep(path.parent, f'.{path.stem}')
            make_file(path, lambda file: _write(file, blob))
            make_file(_sidecar(path), lambda file: _write(file, text.encode()))
    except (OSError, OodPerceptionError) as error:
        _LOG.warning('the compiled engine is not kept for the next start: %s', error)


def _sidecar(path: Path) -> Path:
    return path.with_suffix('.json')


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)
