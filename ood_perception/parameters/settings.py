# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Values of the node's parameters by name, and what pipeline and tracker make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ood_perception.postprocess.roi import RoiSettings
from ood_perception.postprocess.roi_files import load_masks, parse_polygons
from ood_perception.postprocess.tracking import Persistence
from ood_perception.settings import Settings

Values = Mapping[str, Any]
PINNING = {'auto': None, 'always': True, 'never': False}  # of pin_threads, see EngineOptions


def strings(value: Any) -> tuple[str, ...]:
    """Return the non-empty strings of an array parameter: [''] is a ROS file's empty list."""
    return tuple(item for item in value if item)


def settings_from(values: Values) -> Settings:
    """Return the pipeline's settings from parameter values; ConfigError if they do not fit."""
    mode = values['roi.mode']
    return Settings(
        false_alarm_rate=values['false_alarm_rate'],
        in_distribution=strings(values['in_distribution']),
        roi=RoiSettings(
            mode=mode,
            classes=strings(values['roi.classes']),
            polygons=parse_polygons('roi.polygons', values['roi.polygons']),
            ignore_polygons=parse_polygons('roi.ignore_polygons', values['roi.ignore_polygons']),
            bridge=values['roi.bridge'],
            margin=values['roi.margin'],
            masks=load_masks('roi.masks', values['roi.masks']) if mode == 'mask' else {},
        ),
        minimum_area=values['minimum_area'],
        hysteresis_rate=values['hysteresis_rate'],
        obstacle_classes=strings(values['obstacle_classes']),
        views=values['views'],
    )


def persistence_from(values: Values) -> Persistence:
    """Return when obstacles are announced; ConfigError if m is greater than n."""
    return Persistence(**{f.name: values[f'persistence.{f.name}'] for f in fields(Persistence)})
