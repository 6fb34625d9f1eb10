# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which bundle, precision and views meet a wanted rate on this machine, and how good each is.

Every candidate is measured for a short while in a process of its own, on made-up frames: the
pipeline from a decoded frame to its mask. The average precision is not measured here: it is what
`bundles/figures.json` says of a shipped bundle's exact version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ood_perception.bench.cases import Case
from ood_perception.bench.protocol import Times, Worker, percentiles
from ood_perception.bundle.store import SHIPPED_BUNDLES, Bundle
from ood_perception.engines.int8 import INT8
from ood_perception.json_files import read_json
from ood_perception.types import JsonDict, Tell

WORKER = 'ood_perception.bench.worker'
FIGURES = SHIPPED_BUNDLES / 'figures.json'
WHOLE, ALL_VIEWS = 'whole', 'all'
MOST_RUNS = 30
Measured = tuple[Times, str]


@dataclass(frozen=True)
class Candidate:
    """
    One way of running one bundle, and what was found.

    bundle: name or folder. precision: its name. views: whether its further views are seen. ap: of
    each set in percent, {} = not known. ms: median and 95th percentile of a frame, () = not
    measured. reason: why not.
    """

    bundle: str
    precision: str
    views: bool
    ap: Mapping[str, float]
    ms: tuple[float, ...] = ()
    reason: str = ''

    @property
    def hz(self) -> float:
        """Frames a second, 0 where it was not measured."""
        return 1e3 / self.ms[0] if self.ms else 0.0

    @property
    def quality(self) -> float:
        """The mean average precision over the sets, -1 where it is not known."""
        return sum(self.ap.values()) / len(self.ap) if self.ap else -1.0


def candidates(
    place: str, bundle: Bundle, precisions: Sequence[str], figures: JsonDict
) -> list[Candidate]:
    """
    Return the ways to run a bundle: its precisions, with its further views and without.

    place: its name or folder, as the node takes it. figures: of figures.json. int8 is only there
    where the bundle holds its ranges.
    """
    manifest = bundle.manifest
    known = figures.get(manifest.name, {})
    rows = known.get('ap', []) if known.get('sha256') == bundle.sha256 else []
    found = []
    for precision in precisions:
        if precision == INT8 and INT8 not in manifest.precisions:
            continue
        for views in (True, False) if manifest.input.views else (False,):
            ap: JsonDict = next((row['sets'] for row in rows if _is_of(row, precision, views)), {})
            found.append(Candidate(place, precision, views, ap))
    return found


def _is_of(row: JsonDict, precision: str, views: bool) -> bool:
    return (row['precision'], row['views']) == (precision, views)


def known_figures(path: Path = FIGURES) -> JsonDict:
    """Return what is known of the shipped bundles, {} where there is no file."""
    return read_json(path) if path.is_file() else {}


def measured(
    wanted: Sequence[Candidate],
    places: Mapping[str, Path],
    base: Case,
    seconds: float,
    tell: Tell,
    open_worker: Callable[[Case], Worker] = lambda case: Worker(case.label, WORKER, asdict(case)),
) -> Iterator[Candidate]:
    """
    Yield every candidate with its times; once `seconds` have passed, the rest is not measured.

    places: of the bundles, by how they are called. base: threads, camera and weights of all.
    """
    end = time.monotonic() + seconds
    share = seconds / max(1, len(wanted))
    for one in wanted:
        if time.monotonic() > end:
            yield replace(one, reason=f'not measured: the {seconds:g} s were over (--seconds)')
            continue
        case = replace(
            base,
            bundle=str(places[one.bundle]),
            precision=one.precision,
            views=ALL_VIEWS if one.views else WHOLE,
        )
        tell(f'measuring: {case.label}')
        with open_worker(case) as worker:
            yield _timed(one, worker, min(share, end - time.monotonic()))


def _timed(one: Candidate, worker: Worker, share: float) -> Candidate:
    """Return a candidate with the times of as many runs as its share of the time allows."""
    worker.ready()
    worker.measure(1, keep=False)
    start = time.monotonic()
    worker.measure(2)
    if worker.error:
        return replace(one, reason=worker.error)
    each = (time.monotonic() - start) / 2
    if runs := min(MOST_RUNS, int(0.5 * share / max(each, 1e-4))):
        worker.measure(runs)
    times = percentiles(worker.times()['total'])
    return replace(one, ms=(times['p50'], times['p95']))


def ranked(found: Sequence[Candidate], hz: float) -> list[Candidate]:
    """Return those that meet the rate first, the best average precision first among either."""
    return sorted(found, key=lambda one: (one.hz < hz, -one.quality, -one.hz))


def to_json(found: Sequence[Candidate], hz: float) -> JsonDict:
    """Return the answer for programs; `chosen` is None where nothing meets the rate."""
    rows = [{**asdict(one), 'hz': one.hz, 'meets': one.hz >= hz} for one in ranked(found, hz)]
    return {'wanted_hz': hz, 'chosen': rows[0] if rows and rows[0]['meets'] else None, 'all': rows}
