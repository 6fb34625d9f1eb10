# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of the live node against the offline ones of the same bag, frame by frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError
from ood_perception.image.decode import stamp_ns
from ood_perception.json_files import write_json
from ood_perception.reports.html import write_page
from ood_perception.types import JsonDict

from .problems import FAIL, Problems
from .reading import Bag
from .replay import RESULT
from .writing import output_topic

# (stamp in nanoseconds, digest of the mask) of each frame
Masks = Iterable[tuple[int, bytes]]
_NAMED = 10


@dataclass(frozen=True)
class CameraComparison:
    """
    One camera's masks, live against offline.

    offline: frames that were evaluated offline. live: of these, those whose mask came from the
    node. equal, different: of the live ones. dropped: offline - live, what real time cost.
    foreign: live masks of stamps that the bag does not have. stamps_that_differ: the first few.
    """

    camera: str
    offline: int
    live: int
    equal: int
    different: int
    dropped: int
    foreign: int
    stamps_that_differ: tuple[int, ...] = ()


def mask_digest(message: Any) -> bytes:
    """Return what two masks share exactly when size and every pixel are the same."""
    digest = hashlib.sha256(f'{message.width}x{message.height} {message.encoding} '.encode())
    digest.update(message.data)
    return digest.digest()[:16]


def offline_cameras(folder: Path) -> list[JsonDict]:
    """Return the cameras of an evaluated bag's report: camera, topic, type, counts; DataError."""
    path = folder / 'report.json'
    try:
        cameras: list[JsonDict] = json.loads(path.read_text(encoding='utf-8'))['cameras']
        return cameras
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{path} cannot be read ({error}): make it with evaluate_bag --out {folder}'
        ) from error


def offline_masks(folder: Path, cameras: Sequence[str]) -> dict[str, list[tuple[int, bytes]]]:
    """Return every camera's masks of an evaluated bag, 24 bytes a frame; DataError without."""
    masks: dict[str, list[tuple[int, bytes]]] = {camera: [] for camera in cameras}
    names = {output_topic(camera, 'mask'): camera for camera in cameras}
    with Bag(folder / RESULT, Problems(FAIL)) as bag:
        for message in bag.messages(names):
            content = bag.cdr.read(message.data, message.msgtype)
            masks[names[message.topic]].append((stamp_ns(content), mask_digest(content)))
    if not all(masks.values()):
        missing = ', '.join(topic for topic, camera in names.items() if not masks[camera])
        raise DataError(f'{folder / RESULT} has no {missing}: evaluate with the output mask')
    return masks


def compare_masks(camera: str, offline: Masks, live: Masks) -> CameraComparison:
    """Hold a camera's live masks against the offline ones of the same stamp."""
    expected: dict[int, set[bytes]] = {}
    count = 0
    for stamp, digest in offline:
        expected.setdefault(stamp, set()).add(digest)
        count += 1
    equal, foreign, differing = 0, 0, []
    for stamp, digest in live:
        if stamp not in expected:
            foreign += 1
        elif digest in expected[stamp]:
            equal += 1
        else:
            differing.append(stamp)
    heard = equal + len(differing)
    return CameraComparison(
        camera=camera,
        offline=count,
        live=heard,
        equal=equal,
        different=len(differing),
        dropped=max(0, count - heard),
        foreign=foreign,
        stamps_that_differ=tuple(differing[:_NAMED]),
    )


def all_equal(rows: Sequence[CameraComparison]) -> bool:
    """Return whether something came from every camera and nothing differed."""
    return all(row.live and not row.different and not row.foreign for row in rows)


def write_comparison(
    folder: Path,
    rows: Sequence[CameraComparison],
    facts: Mapping[str, str],
    counters: Mapping[str, Mapping[str, str]],
) -> None:
    """Write live.json and live.html; facts: rate, player... counters: the node's, by camera."""
    record = {
        'equal': all_equal(rows),
        'facts': dict(facts),
        'cameras': [asdict(row) for row in rows],
        'node': {name: dict(values) for name, values in counters.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'live.json', record, indent=2)
    write_page(
        folder / 'live.html',
        'live.html.j2',
        record=record,
        summary=summary(rows),
        counted=sorted({name for values in counters.values() for name in values}),
    )


def summary(rows: Sequence[CameraComparison]) -> str:
    """Return the outcome in a line."""
    offline, live = sum(row.offline for row in rows), sum(row.live for row in rows)
    different = sum(row.different for row in rows)
    verdict = 'all equal to the offline masks' if all_equal(rows) else f'{different} differ'
    silent = [row.camera or 'the camera' for row in rows if not row.live]
    if silent:
        verdict = f'no mask came of {", ".join(silent)}'
    return f'{live} of {offline} frames came back live, {offline - live} were dropped; {verdict}'
