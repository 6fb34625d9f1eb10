# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Score every row on every set, once; measure what each row costs."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import write_json
from ood_perception.yaml_files import read_mapping

from ..data import PictureList, content_sha256
from .results import ResultFolder
from .rows import Row, rows_from
from .scoring import Region, latency_ms, picture_tokens, score_maps, score_of, scored_pictures
from .workbench import BenchConfig, Workbench, bench_config, tokens_of

LOG = logging.getLogger(__name__)
Records = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class EvaluationSet:
    """
    One anomaly set.

    longest: the longest side of its pictures at the network, at resolution 1.
    regions: name -> which pixels of a picture are scored.
    """

    name: str
    pictures: PictureList
    longest: int
    regions: Mapping[str, Region]


@dataclass(frozen=True)
class TableConfig:
    """A table: what is shared, its rows, and everything else that its file says."""

    bench: BenchConfig
    rows: tuple[Row, ...]
    other: Mapping[str, Any]

    def row(self, name: str) -> Row:
        """Return a row by name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigError(f'no row is named {name!r}; rows: {[row.name for row in self.rows]}')


def table_path(command: str, text: str | None, arguments: Sequence[str]) -> Path:
    """Parse the arguments of a command whose only one is the table's YAML file."""
    parser = argparse.ArgumentParser(f'trainer {command}', description=text)
    parser.add_argument('table', type=Path, help='YAML file, see config/train')
    path: Path = parser.parse_args(arguments).table
    return path


def load_table(path: Path, other: Sequence[str]) -> TableConfig:
    """Read a table's YAML; `other` names the keys that belong to the caller."""
    values = read_mapping(path, 'table')
    extra = {key: values.pop(key) for key in other if key in values}
    base, declared = values.pop('base', {}), values.pop('rows', [])
    config = bench_config(values, str(path))
    return TableConfig(config, tuple(rows_from(base, declared)), extra)


def table_bench(config: TableConfig) -> Workbench:
    """Return a workbench with the blocks that the rows read."""
    return Workbench(config.bench, [block for row in config.rows for block in row.layers])


def result_folder(bench: Workbench, sets: Sequence[EvaluationSet]) -> ResultFolder:
    """Return where results are kept, keyed by the data that they depend on."""
    parts = [[one.name, one.longest, content_sha256(one.pictures)] for one in sets]
    text = json.dumps([parts, bench.data_key()])
    config = bench.config
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return ResultFolder(config.folder / 'results', key, config.resamples, config.seed)


def run_rows(
    bench: Workbench, rows: Sequence[Row], sets: Sequence[EvaluationSet], results: ResultFolder
) -> dict[str, Records]:
    """Return set name -> row name -> record, computing what the folder lacks."""
    records: dict[str, Records] = {one.name: {} for one in sets}
    for number, row in enumerate(rows):
        missing = [one for one in sets if results.load(row, one.name) is None]
        if missing:
            LOG.info('row %d of %d: %s', number + 1, len(rows), row.name)
            score = score_of(row, bench.head(row))
            for one in missing:
                longest = round(one.longest * row.resolution)
                features = bench.anomaly_features(one.pictures, longest)
                maps = score_maps(score, features, tokens_of(row))
                results.save(
                    row, one.name, scored_pictures(one.pictures, features, maps, one.regions)
                )
        for one in sets:
            record = results.load(row, one.name)
            assert record is not None
            records[one.name][row.name] = record
    return records


def measure_rows(bench: Workbench, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """
    Return row name -> {'head_ms', 'total_ms'}: torch, one picture of the fitting view's size.

    A kept measurement is taken up only on a machine of the same processor and thread count.
    """
    return {row.name: _measured(bench, row) for row in rows}


def setting() -> dict[str, Any]:
    """Return what a latency depends on beside the row."""
    return {'processor': _processor(), 'threads': torch.get_num_threads(), 'runtime': 'torch f32'}


def _processor() -> str:
    """Return the processor's name, as Linux tells it."""
    source = Path('/proc/cpuinfo')
    lines = source.read_text(encoding='utf-8').splitlines() if source.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def _measured(bench: Workbench, row: Row) -> dict[str, float]:
    config = bench.config
    path = config.folder / 'latency' / f'{row.key()}.json'
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        if kept['setting'] == setting():
            return {'head_ms': kept['head_ms'], 'total_ms': kept['total_ms']}
    score = score_of(row, bench.head(dataclasses.replace(row, calibration='paper')))
    tokens = picture_tokens(bench.fit_features, tokens_of(row), 0)
    image = torch.zeros((1, *config.view.size, 3), dtype=torch.uint8)
    baked = bench.backbone.baked(*config.view.size, row.layers)
    head = latency_ms(lambda: score(*tokens), config.repeats)
    total = head + latency_ms(lambda: baked(image), config.repeats)
    write_json(path, {'setting': setting(), 'head_ms': head, 'total_ms': total})
    return {'head_ms': head, 'total_ms': total}
