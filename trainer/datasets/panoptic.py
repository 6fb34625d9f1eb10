# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Panoptic labels in the COCO form: a colour PNG of segment ids and one JSON of segments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import DataError
from ood_perception.evaluation.maritime import Segments

from ..data.images import IGNORED, read_image


class PanopticLabels:
    """
    The segments of a list of images; the JSON is read once, at the first call.

    base: folder of panoptic_masks/ and panoptic_annotations.json. names: of the images.
    """

    def __init__(self, base: Path, names: Sequence[str]) -> None:
        self._base = base
        self._names = tuple(names)

    def __call__(self, index: int) -> Segments:
        """Return one image's segments; DataError naming the file that is missing or wrong."""
        name = self._names[index]
        (path,) = self.files(index)
        colors = read_image(path, 'panoptic mask')
        ids = colors.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        if name not in self._annotations:
            raise DataError(f'{self._json} has no annotation of {name}.png')
        void = (0, IGNORED * (1 + 256 + 65536))  # black or white, in copies that mark ignored so
        known = self._annotations[name]
        unknown = [int(i) for i in np.unique(ids) if i not in known and i not in void]
        if unknown:
            raise DataError(f'{path} holds segments {unknown} that {self._json} does not know')
        colors[ids == void[1]] = 0
        return Segments(colors, known)

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the mask's file; the JSON, which all images share, is not named."""
        return (self._base / 'panoptic_masks' / f'{self._names[index]}.png',)

    def subset(self, indices: Sequence[int]) -> PanopticLabels:
        """Return those of the images at `indices`, in that order."""
        return PanopticLabels(self._base, [self._names[index] for index in indices])

    @property
    def _json(self) -> Path:
        return self._base / 'panoptic_annotations.json'

    @cached_property
    def _annotations(self) -> dict[str, dict[int, int]]:
        """Return image -> segment -> category."""
        try:
            content: Any = json.loads(self._json.read_text(encoding='utf-8'))
            return {
                Path(entry['file_name']).stem: {
                    int(segment['id']): int(segment['category_id'])
                    for segment in entry['segments_info']
                }
                for entry in content['annotations']
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{self._json} cannot be read as COCO panoptic annotations: {error!r}'
            ) from error
