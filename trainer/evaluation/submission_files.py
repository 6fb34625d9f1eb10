# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The files that benchmarks with hidden labels take, one a frame, written whole or not at all.

SegmentMeIfYouCan (its tool, README and evaluation code, version 1c7804e): one HDF5 a frame at
anomaly_p/<method>/<data set>/<frame>.hdf5 with one array `value`, float16 (H, W), gzip 9; higher
is stranger. float16 has 1024 steps between a number and its double, so surprisal keeps its ranks
while 1 - p (everything between 0.9995 and 1 is one number) would collapse.

LaRS (its evaluator's README and configuration 1.0.0): one RGB PNG a frame at <method>/<frame>.png.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError, DataError, DependencyError
from ood_perception.files import make_file
from ood_perception.metrics.lars import coloured, from_coloured

from ..data.images import read_image

Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

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
    """Write float32 (H, W) surprisal as float16, in the form that the suffix says."""
    values = as_float16(surprisal)
    if path.suffix == '.npy':
        make_file(path, lambda temporary: _save_npy(temporary, values))
        return
    hdf5 = _hdf5()

    def write(temporary: Path) -> None:
        with hdf5.File(temporary, 'w') as file:
            file.create_dataset('value', data=values, compression=9)

    make_file(path, write)


def read_scores(path: Path) -> Float16Array:
    """Read what write_scores wrote; DataError naming a file that is not it."""
    try:
        if path.suffix == '.npy':
            values = np.load(path, allow_pickle=False)
        else:
            with _hdf5().File(path, 'r') as file:
                values = file['value'][:]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f'{path} is no submission file: {error}') from error
    return np.asarray(values, np.float16)


def as_float16(surprisal: Float32Array) -> Float16Array:
    """Return the values as float16; DataError where one is no finite float16."""
    if not np.isfinite(surprisal).all() or np.abs(surprisal).max(initial=0) > 65504:
        raise DataError('surprisal is not finite or above 65504: the bundle is broken')
    return surprisal.astype(np.float16)


def write_lars(path: Path, labels: UInt8Array) -> None:
    """Write uint8 (H, W) of 0 obstacle, 1 water, 2 sky as the colours that the server knows."""
    colors = coloured(labels)
    done, content = cv2.imencode('.png', np.ascontiguousarray(colors[:, :, ::-1]))
    if not done:
        raise DataError(f'{path} cannot be encoded as PNG')
    make_file(path, lambda temporary: _save_bytes(temporary, content.tobytes()))


def read_lars(path: Path) -> UInt8Array:
    """Return uint8 (H, W) of 0 obstacle, 1 water, 2 sky; 255 for any other colour."""
    return from_coloured(read_image(path, 'prediction'))


def _save_npy(path: Path, values: Float16Array) -> None:
    with path.open('wb') as file:  # np.save would add a suffix to the temporary name
        np.save(file, values, allow_pickle=False)


def _save_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _hdf5() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DependencyError(
            "HDF5 files need the package h5py: pip install 'ood_perception[submission]', or "
            'write --format npy'
        ) from error
    return h5py
