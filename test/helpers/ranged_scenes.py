# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A sea with one thing in it, as detections and views."""

import numpy as np

from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess.mask import make_mask, obstacles_of
from ood_perception.postprocess.roi import class_table, scored_region
from ood_perception.ranging.attitude import level, mounting
from ood_perception.ranging.camera_model import Calibration, camera_model
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Viewpoint
from ood_perception.types import Detection, Frame

THING, GROUND, SKY = 0, 1, 2


ROWS, COLUMNS, CELL = 48, 64, 10  # an image of 640 x 480 pixels


EDGE = 16


SCENE = Scene(class_table([GROUND]), class_table([THING]))


FAR = {'largest_ratio': 100.0}


def detection(paint=None, visible=None, announced=slice(None)):
    """Ground from row EDGE on, sky above, and what `paint` adds; things are in the mask."""
    labels = np.full((ROWS, COLUMNS), SKY, np.uint8)
    labels[EDGE:] = GROUND
    if paint is not None:
        paint(labels)
    visible = np.ones(labels.shape, bool) if visible is None else visible
    scored = scored_region('below_edge', labels, visible, SCENE.ground)
    surprisal = np.full(labels.shape, 0.5, np.float32)
    geometry = geometry_for((480, 640), (480, 640))
    mask, components = make_mask(surprisal, scored, 0.01, named=labels == THING)
    obstacles = obstacles_of(components, geometry)[announced]
    frame = Frame(np.zeros((480, 640, 3), np.uint8))
    return Detection(
        frame, surprisal, labels, scored, mask, obstacles, geometry, 0.01, visible=visible
    )


def view(pitch=0.1, **values):
    k = (500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0)
    camera = camera_model(Calibration(480, 640, 'plumb_bob', (), k), (480, 640))
    place = mounting((0.5, 0.2, 2.0), (0.0, pitch, 0.0))
    return Viewpoint(camera, place, level(0.001), **{**FAR, **values})
