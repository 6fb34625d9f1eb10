# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Write the files that a benchmark with hidden labels takes, with the node's own pipeline.

    trainer submission [BUNDLE] --data smiyc_obstacle/all --method NAME --out FOLDER
    trainer submission [BUNDLE] --data lars/test --method NAME --out FOLDER --water Water --sky Sky

SegmentMeIfYouCan gets surprisal (-log10 of the p-value) as float16, LaRS colours: a pixel is an
obstacle where the mask says so, or where its class is neither water nor sky. A run that was
stopped goes on where it was; files of another bundle or other settings are not mixed in.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError, DataError, required
from ood_perception.evaluation.maritime import SeaClasses, sea_labels
from ood_perception.evaluation.results import write_text
from ood_perception.files import check_writable, make_file
from ood_perception.image.geometry import camera_window, to_camera, to_camera_nearest
from ood_perception.json_files import json_text
from ood_perception.metrics.lars import coloured
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.requirements import install_command
from ood_perception.types import Detection, Float32Array, Frame, UInt8Array

from ..data.images import read_image
from ..datasets import EvaluationSet, open_set
from ..progress import progress_bar, show_progress
from .options import (
    add_bundle_arguments,
    add_root_argument,
    command_parser,
    engine_options,
    metadata_of,
    opened,
    sea_classes,
    sets_root,
)

Float16Array = npt.NDArray[np.float16]


SCORE_FORMATS = ('hdf5', 'npy')
_SMIYC_NAMES = {
    'smiyc_anomaly': 'AnomalyTrack-all',
    'smiyc_obstacle': 'ObstacleTrack-all',
    'smiyc_lost_and_found/test': 'LostAndFound-test',
    'smiyc_lost_and_found/train': 'LostAndFound-train',
}


@dataclass(frozen=True)
class Target:
    """
    Where a set's files go.

    folder: relative to the output folder. suffix: of each file, with the dot.
    """

    folder: Path
    suffix: str

    def path(self, out: Path, frame: str) -> Path:
        """Return the file of a frame."""
        return out / self.folder / f'{frame}{self.suffix}'


def target_of(set_name: str, kind: str, method: str, score_format: str) -> Target:
    """
    Return where the files of a set go; ConfigError where the set has no submission files.

    set_name: as EvaluationSet says it. method: the name on the leaderboard, one folder name.
    score_format: 'hdf5' (what the benchmark's tool reads) or 'npy' (the same array, to look at).
    """
    if not method or Path(method).name != method or method in ('.', '..'):
        raise ConfigError(f'method {method!r}: give a name that can be a folder, without /')
    if score_format not in SCORE_FORMATS:
        raise ConfigError(f'format {score_format!r}: choose one of {", ".join(SCORE_FORMATS)}')
    if kind == 'maritime':
        return Target(Path(method), '.png')
    for prefix, name in _SMIYC_NAMES.items():
        if set_name.startswith(prefix):
            return Target(Path('anomaly_p') / method / name, f'.{score_format}')
    raise ConfigError(
        f'{set_name} has no submission files; only the SegmentMeIfYouCan tracks '
        f'({", ".join(_SMIYC_NAMES)}) and lars have (Fishyscapes runs containers, not files)'
    )


def write_scores(path: Path, surprisal: Float32Array) -> None:
    """
    Write float32 (H, W) surprisal as float16, in the form that the suffix says.

    SegmentMeIfYouCan (its tool, README and evaluation code, version 1c7804e): an HDF5 a frame with
    one array `value`, gzip 9; higher is more anomalous. float16 has 1024 steps between a number
    and its double, so surprisal keeps its ranks while 1 - p (all from 0.9995 to 1 is one) would
    collapse.
    """
    values = as_float16(surprisal)
    hdf5 = None if path.suffix == '.npy' else _hdf5()

    def write(temporary: Path) -> None:
        if hdf5 is None:
            with temporary.open('wb') as plain:  # a name would get a suffix
                np.save(plain, values, allow_pickle=False)
            return
        with hdf5.File(temporary, 'w', locking=False) as file:  # make_file holds a lock
            file.create_dataset('value', data=values, compression=9)

    make_file(path, write)


def as_float16(surprisal: Float32Array) -> Float16Array:
    """Return the values as float16; DataError where one is no finite float16."""
    if not np.isfinite(surprisal).all() or np.abs(surprisal).max(initial=0) > 65504:
        raise DataError('surprisal is not finite or above 65504: the bundle is broken')
    return surprisal.astype(np.float16)


def write_lars(path: Path, labels: UInt8Array) -> None:
    """
    Write uint8 (H, W) of 0 obstacle, 1 water, 2 sky as the colours that the server knows.

    RGB PNG, see the README and configuration 1.0.0 of LaRS's evaluator.
    """
    colors = coloured(labels)
    done, content = cv2.imencode('.png', np.ascontiguousarray(colors[:, :, ::-1]))
    if not done:
        raise DataError(f'{path} cannot be encoded as PNG')
    make_file(path, lambda temporary: temporary.write_bytes(content) and None)


def _hdf5() -> Any:
    install = install_command('submission')
    return required('h5py', f'HDF5 files need h5py: {install}, or write --format npy')


def score_map(detection: Detection) -> Float32Array:
    """
    Return float32 (H, W) surprisal at the image's size, finite everywhere.

    Outside the region of interest, and where the network does not see, it is 0: most normal.
    """
    scores = to_camera(detection.surprisal, detection.geometry)
    region = np.zeros(scores.shape, bool)
    rows, columns = camera_window(detection.geometry)
    region[rows, columns] = to_camera_nearest(detection.scored, detection.geometry)[rows, columns]
    scores[~region] = 0
    return scores


def write_submission(
    pipeline: Pipeline,
    data: EvaluationSet,
    target: Target,
    out: Path,
    facts: dict[str, Any],
    sea: SeaClasses | None = None,
) -> int:
    """
    Write one file for every frame of the set; return how many were written now.

    facts: what the files depend on; kept beside them, and a folder of other facts is refused
    with ConfigError. Raises DataError for the first image that cannot be read.
    """
    record = out / f'{"_".join(target.folder.parts)}.json'
    _claim(record, facts)
    table = (sea or SeaClasses()).table(pipeline.manifest) if data.kind == 'maritime' else None
    written = 0
    frames = list(zip(data.images.names, data.images.images, strict=True))
    for name, image in progress_bar(frames, data.title):
        path = target.path(out, name)
        if path.is_file():
            continue
        detection = pipeline.run([Frame(read_image(image), frame_id=name)])[0]
        if table is None:
            write_scores(path, score_map(detection))
        else:
            write_lars(path, sea_labels(detection, table))
        written += 1
    return written


def _claim(record: Path, facts: dict[str, Any]) -> None:
    """Write down what the files depend on; ConfigError where other files are there already."""
    text = json_text(facts, indent=2, sort_keys=True, default=str) + '\n'
    if record.is_file():
        if record.read_text(encoding='utf-8') != text:
            raise ConfigError(
                f'{record} says that its files come from another bundle or other settings; '
                'give another --method or --out, or remove them'
            )
        return
    write_text(record, text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer submission`."""
    result = command_parser(__doc__)
    add = result.add_argument
    add('bundle', nargs='?', default='', help='folder, .zip or shipped name; default: the road')
    add('--data', required=True, metavar='SET', help='smiyc_..., lars/...; see docs/datasets.md')
    add('--method', required=True, help='name on the leaderboard')
    add_root_argument(result)
    add('--out', type=Path, default=Path('out/submission'), help='default: %(default)s')
    add('--format', default='hdf5', choices=SCORE_FORMATS, help='of scores; default: %(default)s')
    add('--ground', action='store_true', help='scores outside the predicted ground become 0')
    add('--minimum-area', type=float, default=0.0, help='of obstacles in pixels (LaRS)')
    add_bundle_arguments(result, 'of the mask (LaRS)')
    add('--quiet', action='store_true', help='no progress bar')
    return result


def main(arguments: Sequence[str]) -> int:
    """Run `trainer submission`."""
    options = parser().parse_args(arguments)
    check_writable(options.out)
    data = open_set(options.data, sets_root(options))
    target = target_of(data.name, data.kind, options.method, options.format)
    settings = Settings(
        options.false_alarm_rate,
        tuple(options.in_distribution),
        RoiSettings('ground' if options.ground else 'none'),
        options.minimum_area,
        views=options.views,
    )
    sea = sea_classes(options)
    engine = engine_options(options)
    with opened(options.bundle, settings, engine, options.weights) as (bundle, pipeline):
        facts = {
            **metadata_of(bundle, pipeline),
            # The splits of a track share its folder, those of LaRS do not.
            'set': data.name if data.kind == 'maritime' else target.folder.name,
            'licence': data.licence,
        }
        if data.kind == 'maritime':
            facts['classes'] = asdict(sea)
        show_progress(not options.quiet)
        written = write_submission(pipeline, data, target, options.out, facts, sea)
    place = options.out / target.folder
    print(f'{place}: {len(data)} files, {written} written now')
    return 0
