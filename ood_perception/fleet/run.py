# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All recordings through one bundle: what the ledger lacks is evaluated, then one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ood_perception.bundle.store import load_bundle
from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import run_key
from ood_perception.files import check_writable, locked, make_folder
from ood_perception.reports.html import environment
from ood_perception.types import JsonDict, Tell

from .ledger import Item, Ledger
from .pool import Cluster, Crew, Files, work_through
from .recordings import find_recordings
from .report import collect_mined, fleet_report, write_fleet
from .worker import RecordingWorker, Work, write_files


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

        def keep(item: Item, files: Files) -> None:
            make_folder(ledger.results(item), lambda folder: write_files(folder, files))

        crew = Crew(RecordingWorker, work, 'recording', keep, cluster)
        work_through(ledger, recordings, crew, tell)
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
