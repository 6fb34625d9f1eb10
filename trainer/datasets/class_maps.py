# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Class maps of data sets: files that come with them, labels of anomalies, labels by mistake."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError
from ood_perception.image.image_files import read_label
from ood_perception.yaml_files import read_yaml

from ..data.class_map import ClassMap, class_map_of
from ..data.images import ANOMALY, IGNORED, NORMAL

_ANOMALIES = (('normal', (0, 0, 0)), ('anomaly', (255, 102, 0)))
# of GOOSE: what is unlabelled, the own vehicle, what its makers leave out of scores
_NO_SURROUNDING = ('undefined', 'ego_vehicle', 'outlier')
_LAST_TRAIN_ID, _LOOKED = 18, 20


def anomaly_classes(ids: Mapping[int, int]) -> ClassMap:
    """Return the class map of normal and anomaly for labels that are written as `ids` says."""
    names, colors = zip(*_ANOMALIES, strict=True)
    return ClassMap(names, colors, dict(ids))


def anomaly_map(written: Mapping[str, Sequence[int | str]]) -> ClassMap:
    """Return it for lists of ids, such as 254 or '0-18', of normal, anomaly and ignored."""
    places = {'normal': NORMAL, 'anomaly': ANOMALY, 'ignored': IGNORED}
    return anomaly_classes({i: places[kind] for kind, ids in written.items() for i in _ids(ids)})


def _ids(ranges: Iterable[int | str]) -> Iterator[int]:
    for one in ranges:
        first, _, last = str(one).partition('-')
        yield from range(int(first), int(last or first) + 1)


def class_file(path: Path) -> ClassMap:
    """
    Read the classes of a set's own file.

    path: classes.yaml of your own, the config of Mapillary Vistas (JSON), or the table of GOOSE
    (CSV). Raises DataError naming the file and what is wrong with it.
    """
    if path.suffix == '.yaml':
        return class_map_of(read_yaml(path, 'class map', DataError), str(path))
    read, what = (
        (_of_mapillary, 'Mapillary Vistas config')
        if path.suffix == '.json'
        else (_of_goose, 'the table of GOOSE')
    )
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} cannot be read as {what}: {error!r}') from error


def _of_mapillary(path: Path) -> ClassMap:
    """Read names, colours and which classes count from the set's config."""
    labels: list[Any] = json.loads(path.read_text(encoding='utf-8'))['labels']
    rows = [
        (str(one['readable']), place, tuple(int(v) for v in one['color']), bool(one['evaluate']))
        for place, one in enumerate(labels)
    ]
    return _of_rows(rows, ())


def _of_goose(path: Path) -> ClassMap:
    """Read names, ids and colours from the set's table."""
    with path.open(newline='', encoding='utf-8-sig') as file:
        lines = list(csv.DictReader(file))
    rows = [
        (
            line['class_name'].strip(),
            int(line['label_key']),
            tuple(bytes.fromhex(line['hex'][1:7])),
        )
        for line in lines
    ]
    return _of_rows([(*row, row[0] not in _NO_SURROUNDING) for row in rows], (255,))


def _of_rows(rows: Sequence[tuple[str, int, Any, bool]], ignored: Sequence[int]) -> ClassMap:
    """Return the map of (name, id, colour, whether it counts)."""
    kept = [row for row in rows if row[3]]
    return ClassMap.of(
        [(name, (red, green, blue)) for name, _, (red, green, blue), _ in kept],
        ids=[place for _, place, _, _ in kept],
        ignored=[*(place for _, place, _, counts in rows if not counts), *ignored],
    )


def need_label_ids(labels: Sequence[Path]) -> None:
    """
    Raise DataError for Cityscapes' labelIds files that hold the 19 train ids, 0..18 and 255.

    Few files are read: vegetation, sky and car, of which hardly a street lacks all, are 21 to 26.
    """
    looked = labels[:: max(1, len(labels) // _LOOKED)]
    for path in looked:
        with suppress(DataError):  # a broken file is met when its image is used
            ids = read_label(path)
            if ((ids > _LAST_TRAIN_ID) & (ids != IGNORED)).any():
                return
    raise DataError(
        f'{len(looked)} of {len(labels)} files such as {looked[0]} hold ids up to '
        f'{_LAST_TRAIN_ID} and {IGNORED} alone: these are train ids under the name of label ids. '
        'Take the labelIds files of gtFine_trainvaltest anew, or the layout "folders" with the '
        'ids 0 to 18'
    )
