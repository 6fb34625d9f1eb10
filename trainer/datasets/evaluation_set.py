# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A data set that was opened, with all that evaluations need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from ood_perception.types import UInt8Array

from ..data.images import ImageList
from .panoptic import PanopticLabels

KINDS = ('anomaly', 'closed-set', 'maritime', 'inspection')
REGIONS = ('image', 'road')
TRACKS = ('', 'AnomalyTrack', 'ObstacleTrack', 'LostAndFound')


@dataclass(frozen=True)
class EvaluationSet:
    """
    A data set that can be measured.

    name: as it was asked for, split included ('streethazards/test'). title: for people.
    images: names, sequences, files; labels of 'anomaly' and 'inspection' sets are 0 normal,
        1 anomaly, 255 ignored; those of 'closed-set' and 'maritime' sets are class ids.
    kind: one of KINDS. roi: 'road' where the labels are the road and what stands on it alone, so
        that no predicted region is needed; else 'image'.
    licence: what its makers allow.
    track: whose size limits the component metrics take, one of TRACKS ('' = none official).
    classes: the same images with the labels of the known classes (anomalies IGNORED), where
        the set has both; open-set metrics need it.
    panoptic: the same images' segments by index, where the set has them.
    anomalous_images: inspection sets only: True per image that shows a defect.
    """

    name: str
    title: str
    images: ImageList
    kind: str
    roi: str
    licence: str
    track: str = ''
    classes: ImageList | None = None
    panoptic: PanopticLabels | None = None
    anomalous_images: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.roi not in REGIONS or self.track not in TRACKS:
            raise ValueError(f'{self.name}: {self.kind!r}, {self.roi!r} or {self.track!r} unknown')

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; hidden test sets have none."""
        return bool(self.images.labels)

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of every image by its name."""
        return {name: index for index, name in enumerate(self.images.names)}

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array | None]:
        """
        Return uint8 RGB (H, W, 3) and uint8 labels (H, W), None where the set has no labels.

        Raises DataError naming the image or label file that is missing, broken or wrong.
        """
        image, labels = self.images.read(index)
        return image, labels if self.labelled else None

    def subset(self, indices: Iterable[int]) -> EvaluationSet:
        """Return the set of the images at `indices`, in that order, with all that it has."""
        chosen = tuple(indices)
        return replace(
            self,
            images=self.images.subset(chosen),
            classes=self.classes.subset(chosen) if self.classes else None,
            panoptic=self.panoptic.subset(chosen) if self.panoptic else None,
            anomalous_images=tuple(
                self.anomalous_images[i] for i in chosen if self.anomalous_images
            ),
        )
