# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Score maps of a packed bundle by the node's own pipeline, to stand beside other rows."""

from __future__ import annotations

from collections.abc import Iterator

from ood_perception.bundle.store import Bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.geometry import to_camera
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.roi import RoiSettings
from ood_perception.types import Frame

from ..data import PictureList
from .uem_scores import PictureMaps


def bundle_maps(bundle: Bundle, pictures: PictureList) -> Iterator[PictureMaps]:
    """
    Yield for each picture a function to its surprisal at label size, float32 (H, W).

    In float32, so that a row does not depend on which precision is fastest on this machine.
    """
    with create_engine(bundle, EngineOptions('auto', 'f32', 1)) as engine:
        pipeline = Pipeline(bundle, engine, Settings(roi=RoiSettings('none')))
        for index in range(len(pictures)):
            detection = pipeline.run([Frame(pictures.read(index)[0])])[0]
            grid, geometry = detection.surprisal, detection.geometry
            yield lambda _, g=grid, at=geometry: to_camera(g, at)
