# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a user may change between frames, checked against what bundle and engine know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ood_perception.bundle.manifest import Manifest
from ood_perception.engines.base import Engine
from ood_perception.engines.plan import head_of
from ood_perception.errors import ConfigError
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.types import Float32Array


@dataclass(frozen=True)
class Settings:
    """
    What a user may change between two frames.

    false_alarm_rate: at most this share of in-distribution pixels inside the region of interest
        is flagged, in (0, 1).
    in_distribution: names of the classes that count as normal; () = the bundle's own.
    roi: which pixels are scored.
    minimum_area: obstacles of fewer camera pixels are removed from the mask, >= 0.
    hysteresis_rate: an obstacle stays only if one of its pixels is flagged at this stricter rate,
        too: in (0, false_alarm_rate], 0 = no such test.
    obstacle_classes: names of known classes that are obstacles whatever their score. They take no
        part in the target of false_alarm_rate.
    views: whether the bundle's further views are seen, too; without them a frame costs one image.

    Raises ConfigError for a value out of range.
    """

    false_alarm_rate: float = 0.01
    in_distribution: tuple[str, ...] = ()
    roi: RoiSettings = field(default_factory=RoiSettings)
    minimum_area: float = 0.0
    hysteresis_rate: float = 0.0
    obstacle_classes: tuple[str, ...] = ()
    views: bool = True

    def __post_init__(self) -> None:
        surprisal_threshold(self.false_alarm_rate)
        if not 0.0 <= self.hysteresis_rate <= self.false_alarm_rate:
            raise ConfigError(
                f'hysteresis rate {self.hysteresis_rate:g} with false alarm rate '
                f'{self.false_alarm_rate:g}: it can only be stricter; 0 turns it off'
            )
        if not 0.0 <= self.minimum_area < float('inf'):
            raise ConfigError(f'minimum area {self.minimum_area:g}: give camera pixels, 0 or more')


def chosen_classes(manifest: Manifest, settings: Settings) -> tuple[str, ...]:
    """Return the classes that count as normal; ConfigError for one that the bundle lacks."""
    names = settings.in_distribution or manifest.in_distribution
    class_ids(manifest, names, 'in_distribution')
    return tuple(names)


def class_ids(manifest: Manifest, names: Sequence[str], place: str) -> list[int]:
    """Return the label ids of the names; ConfigError naming `place` for an unknown one."""
    known = [spec.name for spec in manifest.classes]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f'{place} {", ".join(unknown)}: not a class of bundle {manifest.name}, which knows '
            f'{", ".join(known)}'
        )
    return [known.index(name) for name in names]


def class_vector(manifest: Manifest, engine: Engine, settings: Settings) -> Float32Array:
    """Return float32 (C,) of 0/1 over the engine's compiled classes."""
    head = head_of(manifest, engine.options)
    names = chosen_classes(manifest, settings)
    if head.selection != 'min':
        chosen_by_table = bool(head.set_calibration)
        if not chosen_by_table and set(names) != set(manifest.in_distribution):
            raise ConfigError(
                f'in_distribution {", ".join(names)}: head {head.name} ({head.selection}) has one '
                f'table for {", ".join(manifest.in_distribution)} and no class choice; leave it '
                'empty or take a bundle whose selection is min'
            )
        return np.ones(len(engine.compiled_classes), dtype=np.float32)
    missing = [name for name in names if name not in engine.compiled_classes]
    if missing:
        raise ConfigError(
            f'in_distribution {", ".join(missing)}: not compiled into the engine, which has '
            f'{", ".join(engine.compiled_classes)}; compile the head for these classes, too'
        )
    return engine.class_vector(names)
