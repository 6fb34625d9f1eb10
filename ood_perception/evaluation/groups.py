# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Groups of metrics beside the pixel metrics: what a benchmark of its own kind reports of a set.

Each group is one entry of a set's 'groups' in results.json, one table of the page and rows of the
CSV: {'values': name -> share of 1, 'intervals': name -> [low, high], 'bounds': name -> [low, high]
where the value is binned, 'pictures': how many, 'facts': what the numbers depend on}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..metrics.bootstrap import percentile_interval
from ..types import Float64Array, JsonDict
from .results import interval_record, plain


@dataclass(frozen=True)
class Group:
    """
    How a group is shown.

    title: of its table. metrics: name -> title of the column, in order. less_is_better: names of
    those of which less is better. by_class: all other values are columns, too, by their names:
    those that depend on the bundle's classes.
    """

    title: str
    metrics: Mapping[str, str]
    less_is_better: tuple[str, ...] = ()
    by_class: bool = False


GROUPS = {
    'inspection': Group(
        'Defects: pictures and regions',
        {'image_auroc': 'image AUROC', 'pixel_auroc': 'pixel AUROC', 'aupro': 'AUPRO'},
    ),
    'maritime': Group(
        'Obstacles on water',
        {
            'quality': 'Q',
            'edge_accuracy': 'water edge, mu',
            'precision': 'Pr',
            'recall': 'Re',
            'f1': 'F1',
            'mean_iou': 'mIoU',
            'iou_obstacle': 'IoU obstacle',
            'iou_water': 'IoU water',
            'iou_sky': 'IoU sky',
            'false_positive_rate': 'water flagged',
        },
        ('false_positive_rate',),
    ),
    'labels': Group(
        'Known classes: the most likely one',
        {'mean_iou': 'mIoU', 'right_pixels': 'right pixels'},
        by_class=True,
    ),
    'final_map': Group(
        'Known classes: the final map',
        {'mean_iou': 'mIoU', 'right_pixels': 'right pixels'},
        by_class=True,
    ),
    'open_set': Group(
        'Known classes, and unknown where the score says so',
        {'mean_iou': 'mIoU, closed', 'open_mean_iou': 'mIoU, open', 'lost': 'lost'},
        ('lost',),
    ),
    'smiyc': Group(
        'As the SegmentMeIfYouCan leaderboard computes it',
        {
            'average_precision': 'AP',
            'fpr95': 'FPR95',
            'auroc': 'AUROC',
            'best_f1': 'best F1',
            'siou': 'sIoU',
            'ppv': 'PPV',
            'mean_f1': 'mean F1',
        },
        ('fpr95',),
    ),
}


def group_record(
    values: Mapping[str, float],
    samples: Mapping[str, Float64Array],
    pictures: int,
    facts: JsonDict | None = None,
) -> JsonDict:
    """
    Return a group as JSON values.

    values: name -> share of 1, nan where undefined. samples: name -> float64 (R,), the same of
    every bootstrap resample.
    """
    return {
        'values': {name: plain(float(value)) for name, value in values.items()},
        'intervals': {
            name: interval_record(percentile_interval(samples[name])) for name in values
        },
        'bounds': {},
        'pictures': pictures,
        'facts': facts or {},
    }
