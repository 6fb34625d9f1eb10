# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a bundle's engine is on this machine, so that the demo can choose a frame rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.image.geometry import geometry_for, to_network
from ood_perception.types import UInt8Array

_RUNS = 3


@dataclass(frozen=True)
class Speed:
    """
    What the engine test showed.

    description: runtime, version, precision. seconds: one frame. built: seconds to build.
    """

    description: dict[str, str]
    seconds: float
    built: float


def try_engine(bundle: Bundle, options: EngineOptions, image: UInt8Array) -> Speed:
    """
    Build a completed bundle's engine as the node will, and time it on a picture.

    image: uint8 (H, W, 3) RGB. Raises what engines.create_engine does.
    """
    begin = time.monotonic()
    with create_engine(bundle, options) as engine:
        built = time.monotonic() - begin
        spec = bundle.manifest.input
        geometry = geometry_for(
            camera_size=image.shape[:2],
            input_size=(spec.height, spec.width),
            policy=spec.policy,
            anchor=spec.anchor,
        )
        batch = to_network(image, geometry)[None]
        vector = np.ones(len(engine.compiled_classes), np.float32)
        times = []
        for _ in range(_RUNS):
            begin = time.monotonic()
            engine.run(batch, vector)
            times.append(time.monotonic() - begin)
        return Speed(dict(engine.description), min(times), built)
