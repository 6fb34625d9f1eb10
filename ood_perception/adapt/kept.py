# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What costs engine time, kept image by image: a stopped adaptation goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.evaluation.record import Arrays, load_record, save_record
from ood_perception.json_files import json_text
from ood_perception.types import JsonDict

Array = npt.NDArray[Any]


class KeptFrames:
    """
    A folder with a file for each image, named by the image and all else that its content rests on.

    context: plain values and arrays: what made the kept arrays (bundle, engine, settings). With
    another one nothing is reused. A run with more frames takes those of a shorter one.
    """

    def __init__(self, folder: Path, context: JsonDict) -> None:
        self._folder = folder
        self._context = json_text(context, sort_keys=True, default=_digest).encode()
        self.reused = 0

    def arrays(self, parts: Sequence[Array], make: Callable[[], Arrays]) -> Arrays:
        """Return what make() gave for these parts before, or gives now; damaged files go."""
        key = hashlib.blake2b(self._context, digest_size=20)
        for part in parts:
            key.update(_digest(part).encode())
        file = self._folder / f'{key.hexdigest()}.npz'
        arrays = load_record(file)
        if arrays is None:
            arrays = make()
            save_record(file, arrays)
        else:
            self.reused += 1
        return arrays


def _digest(array: Array) -> str:
    whole = hashlib.blake2b(f'{array.dtype.str} {array.shape} '.encode(), digest_size=20)
    whole.update(np.ascontiguousarray(array).data.cast('B'))
    return whole.hexdigest()
