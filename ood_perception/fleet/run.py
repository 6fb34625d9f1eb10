# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All recordings through one bundle: what the ledger lacks is evaluated, then one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ood_perception.bundle.store import load_bundle
from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import run_key
from ood_perception.files import check_writable, locked
from ood_perception.reports.html import environment
from ood_perception.types import JsonDict, Tell

from .ledger import DONE, FAILED, Entry, Ledger
from .pool import Cluster, in_process, on_ray
from .recordings import find_recordings
from .report import collect_mined, fleet_report, write_fleet
from .worker import Work


def evaluate_fleet(
    words: Sequence[str], work: Work, out: Path, cluster: Cluster | None, tell: Tell
) -> JsonDict:
    """
    Evaluate recordings into the folder `out` and return the report; what is there goes on.

    words: see find_recordings. cluster: None = one after the other, in this process. A recording
    that fails is named and tried again by the next call. Raises ConfigError for a folder of other
    files, DataError for words that mean no recording, and as the pool does.
    """
    _check_out(out)
    environment()  # without jinja2 there is no report: say so before the work
    recordings = find_recordings(words)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / 'ledger'):
        ledger = Ledger(out, _key(work))
        todo = [one for one in recordings if not ledger.is_done(one)]
        tell(f'{len(recordings)} recordings, {len(recordings) - len(todo)} of them done before')
        if todo:
            outcomes = on_ray(work, todo, cluster, tell) if cluster else in_process(work, todo)
            # disable=None: shown on a terminal alone
            for recording, outcome, attempts in tqdm(
                outcomes, total=len(todo), unit='recording', leave=False, disable=None
            ):
                status = FAILED if outcome.reason else DONE
                entry = Entry(
                    recording.place, recording.identity, ledger.key, status, outcome.reason,
                    attempts, outcome.worker, round(outcome.seconds, 3),
                )  # fmt: skip
                ledger.add(recording, entry, outcome.files)
                if outcome.reason:
                    tell(f'{recording.place}: {outcome.reason}')
        report = fleet_report(ledger, recordings)
        write_fleet(out, report, collect_mined(ledger, recordings))
    return report


def _check_out(out: Path) -> None:
    """Raise ConfigError where the results cannot lie."""
    check_writable(out)
    if out.is_dir() and any(out.iterdir()) and not (out / 'ledger').is_dir():
        raise ConfigError(f'--out {out} holds other files: give a new folder')


def _key(work: Work) -> str:
    """Return what the results depend on beside the recordings."""
    options = asdict(work.options)
    del options['bag'], options['out']
    facts = {
        'bundle': work.bundle_sha256,
        'second': load_bundle(work.second).sha256 if work.second else '',
        'values': {k: v for k, v in work.values.items() if k not in ('bundle', 'threads')},
        'options': options,
        'mined': work.mined,
    }
    return run_key(json.loads(json.dumps(facts, default=str)))
