# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The node's parameters as values by name: what pipeline and tracker make of them, without ROS.

The node declares and checks them (ros/parameters.py). Who reads a parameter file without a node
(evaluate_bag, trainer operating-point) starts at parameter_files.read_parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ood_perception.engines.base import MODES
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.postprocess.roi_files import load_masks, parse_polygons
from ood_perception.postprocess.tracking import Persistence
from ood_perception.settings import Settings

Values = Mapping[str, Any]
PINNING = {'auto': None, 'always': True, 'never': False}  # of pin_threads, see EngineOptions
# The parameters that decide what a frame gives, with the node's defaults.
DEFAULTS: dict[str, Any] = {
    'bundle': '',
    'weights': '',
    'engine': 'auto',
    'precision': 'auto',
    'threads': 0,
    'engine_mode': MODES[0],
    'pin_threads': 'auto',
    'head': '',
    'false_alarm_rate': 0.01,
    'hysteresis_rate': 0.0,
    'minimum_area': 0.0,
    'in_distribution': (),
    'obstacle_classes': (),
    'roi.mode': 'ground',
    'roi.classes': (),
    'roi.bridge': RoiSettings.bridge,
    'roi.margin': RoiSettings.margin,
    'roi.polygons': (),
    'roi.masks': (),
    'roi.ignore_polygons': (),
    'persistence.window': 1,
    'persistence.required': 1,
    'persistence.mask': False,
    'persistence.longest_gap': 2.0,
    'output_scale': 1.0,
}


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
    )


def persistence_from(values: Values) -> Persistence:
    """Return when obstacles are announced; ConfigError if m is greater than n."""
    return Persistence(
        window=values['persistence.window'],
        required=values['persistence.required'],
        mask=values['persistence.mask'],
        longest_gap=values['persistence.longest_gap'],
    )
