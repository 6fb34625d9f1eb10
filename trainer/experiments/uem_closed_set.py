# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mean IoU on the known classes, with and without UEM: two measurements that must agree."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.geometry import labels_to_grid
from ood_perception.metrics.segmentation import class_iou, confusion

from ..artefacts import write_json
from ..features import FeatureSet
from ..heads.uem import Uem, UemHead
from ..label_maps import tokens_of
from ..segmenter import Segmenter
from ..segmenter_training import confusion_iou

LOG = logging.getLogger(__name__)
Labels = Callable[..., torch.Tensor]


def measured(path: Path, key: str) -> bool:
    """Return whether a file holds a measurement of what `key` stands for."""
    return path.is_file() and bool(json.loads(path.read_text())['key'] == key)


def measure_segmenter(
    path: Path,
    segmenter: Segmenter,
    features: FeatureSet,
    names: Sequence[str],
    facts: dict[str, Any],
) -> None:
    """Write a segmenter's IoU at label size into a JSON file, with `facts`."""
    iou = confusion_iou(segmenter, features)
    mean = float(np.nanmean(iou))
    LOG.info('%s: mean IoU %.4f', path.stem, mean)
    write_json(
        path, {**facts, 'mean': mean, 'classes': dict(zip(names, iou.tolist(), strict=True))}
    )


@torch.inference_mode()
def label_maps_iou(
    readings: Sequence[Labels], layers: Sequence[str], features: FeatureSet, classes: int
) -> tuple[list[npt.NDArray[np.float64]], int]:
    """
    Return the IoU of each class per reading, and how many cells differ between the readings.

    readings: functions of the tokens of `layers` to labels (1, rows, columns), as a bundle gives
    them: compared with the true labels at the middles of these cells.
    """
    counted, different = np.zeros((len(readings), classes, classes), np.int64), 0
    for index in range(len(features.names)):
        tokens = tokens_of(features, layers, [index])
        maps = [labels(*tokens)[0].numpy() for labels in readings]
        truth = labels_to_grid(np.asarray(features.labels[index]), maps[0].shape)
        for counts, found in zip(counted, maps, strict=True):
            counts += confusion(found, truth, classes)
        different += sum(int((found != maps[0]).sum()) for found in maps[1:])
    return [class_iou(counts) for counts in counted], different


def measure_closed_set(
    path: Path,
    segmenter: Segmenter,
    module: Uem,
    features: FeatureSet,
    names: Sequence[str],
    facts: dict[str, Any],
) -> None:
    """
    Write the mean IoU of a segmenter alone and inside a head with UEM into a JSON file.

    names: of the classes. facts: what else belongs into the file.
    """
    head = UemHead(segmenter, module, names)
    readings = (
        lambda *tokens: segmenter(*tokens).argmax(-1),
        lambda *tokens: head.raw_scores(*tokens)[1],
    )
    (alone, inside), different = label_maps_iou(readings, head.layers, features, len(names))
    means = {'without': float(np.nanmean(alone)), 'with': float(np.nanmean(inside))}
    write_json(path, {**facts, **means, 'different': different})
