# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The rendered road scenes of the demo: streets with one strange object, seen by a moving camera.

Everything follows from a scene's seed. Where no real pictures can be had, these stand in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ood_perception.demo import ground, street, things
from ood_perception.demo.camera import Camera, Integral, resample
from ood_perception.demo.film import expose
from ood_perception.demo.solids import Light, Placed, cast_shadow, draw
from ood_perception.demo.truth import GroundTruth
from ood_perception.types import Float32Array, UInt8Array

_HAZE_LENGTH = 220.0
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """
    One street.

    object_name: a key of things.OBJECTS. object_x, object_z: its place, metres. turn: radians.
    frames: pictures. advance: metres the camera drives between two. road: the ground.
    light: sun and sky. cloudy: 0 clear .. 1 overcast.
    exposure: factor of the light. warmth: RGB factors of the whole picture.
    cars: (x, z, RGB paint) of parked cars. trees: (x, z).
    """

    name: str
    seed: int
    object_name: str
    object_x: float
    object_z: float
    turn: float
    frames: int = 8
    advance: float = 0.9
    road: ground.RoadStyle = field(default_factory=ground.RoadStyle)
    light: Light = field(default_factory=Light)
    cloudy: float = 0.7
    exposure: float = 1.0
    warmth: tuple[float, float, float] = (1.0, 1.0, 1.0)
    cars: tuple[tuple[float, float, tuple[int, int, int]], ...] = ()
    trees: tuple[tuple[float, float], ...] = ()


SCENES: tuple[Scene, ...] = (
    Scene(
        'overcast street', 11, 'crate', 0.3, 14.0, 0.5, cloudy=0.95, exposure=0.95,
        cars=((4.2, 22.0, (150, 152, 156)), (4.2, 29.0, (30, 52, 104)), (4.2, 40.0, (150, 9, 9))),
        trees=((-3.6, 24.0), (-3.6, 40.0), (6.6, 36.0)),
    ),
    Scene(
        'low sun', 23, 'suitcase', -0.7, 14.0, -0.45, cloudy=0.35, exposure=1.0,
        road=ground.RoadStyle(left=-2.6, right=4.6, tone=92.0, dashes=1.2, edge_line=True),
        light=Light(sun=(-0.62, 0.50, -0.60), sun_strength=0.55, sky=(0.78, 0.80, 0.86)),
        warmth=(1.05, 1.0, 0.93),
        cars=((3.7, 22.0, (34, 36, 38)), (3.7, 29.0, (176, 178, 180))),
        trees=((-4.2, 18.0), (-4.2, 30.0), (-4.2, 44.0)),
    ),
    Scene(
        'dull afternoon', 41, 'armchair', 0.2, 15.0, 0.3, cloudy=1.1, exposure=0.88,
        road=ground.RoadStyle(left=-2.4, right=4.8, tone=84.0, dashes=1.2),
        warmth=(0.97, 1.0, 1.05),
        cars=((3.9, 26.0, (44, 72, 60)),),
        trees=((-4.4, 22.0), (6.4, 18.0), (-4.4, 38.0)),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """A picture, uint8 (H, W, 3) RGB, and what is in it."""

    name: str
    image: UInt8Array
    truth: GroundTruth


class Street:
    """A scene's textures, made once; `render` then draws any camera position."""

    def __init__(self, scene: Scene, camera: Camera | None = None) -> None:
        """Make the textures of a scene (about three seconds)."""
        self.scene = scene
        self.camera = camera or Camera()
        rng = np.random.default_rng(scene.seed)
        self._ground = Integral(ground.ground_map(rng, scene.road), ground.RESOLUTION)
        self._walls = [
            street.Wall(x, Integral(street.fronts(rng), street.RESOLUTION))
            for x in (scene.road.left - 3.4, scene.road.right + 3.4)
        ]
        self._haze = np.array([204, 209, 214], np.float32)
        self._sky = street.sky(rng, self.camera, scene.cloudy)
        self._skyline = street.skyline(rng, self.camera, self._haze)
        self._trees = [(street.tree(rng), x, z) for x, z in scene.trees]
        self._object = Placed(
            things.OBJECTS[scene.object_name](), scene.object_x, scene.object_z, scene.turn
        )
        self._cars = [Placed(things.car(color), x, z) for x, z, color in scene.cars]

    def render(self, index: int) -> Rendered:
        """Return frame `index`, the same for the same scene and index."""
        scene = self.scene
        camera = replace(self.camera, travelled=index * scene.advance)
        picture = self._sky.copy()
        _over(picture, self._skyline)
        road = self._draw_ground(camera, picture)
        for wall in self._walls:
            self._draw_wall(camera, wall, picture)
        for tree_picture, x, z in sorted(self._trees, key=lambda t: -t[2]):
            if z - camera.travelled > 4.0:
                self._draw_tree(camera, (tree_picture, x, z), picture, road)
        object_mask = np.zeros(road.shape, np.float32)
        for placed in sorted([*self._cars, self._object], key=lambda p: -p.z):
            if placed.z - camera.travelled > placed.solid.radius + 1.0:
                self._draw_solid(camera, placed, picture, road, object_mask)
        rng = np.random.default_rng((scene.seed, index))
        image = expose(picture * np.array(scene.warmth, np.float32), scene.exposure, rng)
        truth = GroundTruth(objects=(object_mask > 0.5,), road=road > 0.5)
        return Rendered(f'{scene.name}, frame {index + 1}', image, truth)

    def _draw_ground(self, camera: Camera, picture: Float32Array) -> Float32Array:
        """Draw the ground in place; return how much of each pixel is road, float32 (H, W)."""
        depths = camera.ground_depths()
        road = np.zeros(picture.shape[:2], np.float32)
        columns = np.arange(camera.width + 1) - camera.center
        for row in range(int(camera.horizon) + 1, camera.height):
            near, far = float(depths[row + 1]), float(depths[row])
            depth = 2.0 / (1.0 / near + (1.0 / far if np.isfinite(far) else 0.0))
            line = self._ground.strip(near + camera.travelled, min(far, 1e4) + camera.travelled)
            metres = columns * depth / camera.focal
            color = resample(line, (metres + ground.HALF_WIDTH) * ground.RESOLUTION)
            picture[row] = self._lit(color, depth)
            inside = np.clip(metres, self.scene.road.left, self.scene.road.right)
            road[row] = np.diff(inside) / np.diff(metres)
        return road

    def _lit(self, color: Float32Array, depth: float | Float32Array) -> Float32Array:
        """Return ground or wall colours lit by sky and sun and dimmed by haze."""
        light = self.scene.light
        factor = np.array(light.sky) + light.sun_strength * max(light.sun[1], 0.0)
        clear = np.exp(-np.asarray(depth, np.float32) / _HAZE_LENGTH)
        return np.asarray(self._haze + clear * (color * factor - self._haze), np.float32)

    def _draw_wall(self, camera: Camera, wall: street.Wall, picture: Float32Array) -> None:
        """Draw a wall in place."""
        columns, layer = wall.draw(camera)
        middle = np.arange(columns.start, columns.stop) + 0.5 - camera.center
        clear = np.exp(-np.abs(camera.focal * wall.x / middle) / _HAZE_LENGTH)[None, :, None]
        sunny = self.scene.light.sun_strength * max(-np.sign(wall.x) * self.scene.light.sun[0], 0)
        color = layer[..., :3] * (0.8 + sunny)
        cover = layer[..., 3:]
        layer[..., :3] = color * clear + self._haze * cover * (1.0 - clear)
        view = picture[:, columns]
        _over(view, layer)

    def _draw_tree(
        self,
        camera: Camera,
        tree: tuple[Float32Array, float, float],
        picture: Float32Array,
        road: Float32Array,
    ) -> None:
        """Draw a tree in place; it hides road."""
        rows, columns, layer = street.paste_tree(camera, *tree)
        _over(picture[rows, columns], layer)
        if layer.size:
            road[rows, columns] *= 1.0 - layer[..., 3]

    def _draw_solid(
        self,
        camera: Camera,
        placed: Placed,
        picture: Float32Array,
        road: Float32Array,
        object_mask: Float32Array,
    ) -> None:
        """Draw shadow and solid in place; the mask takes the object's cover."""
        cast_shadow(picture, camera, placed, self.scene.light)
        is_object = placed is self._object
        box, layer = draw(camera, placed, self.scene.light, _SUPERSAMPLING if is_object else 1)
        rows, columns = slice(box[1], box[3]), slice(box[0], box[2])
        if not layer.size:
            return
        _over(picture[rows, columns], layer)
        road[rows, columns] *= 1.0 - layer[..., 3]
        object_mask[rows, columns] *= 1.0 - layer[..., 3]
        if is_object:
            object_mask[rows, columns] += layer[..., 3]


def _over(under: Float32Array, layer: Float32Array) -> None:
    """Lay an RGBA layer (colour times cover) over RGB, in place."""
    under *= 1.0 - layer[..., 3:]
    under += layer[..., :3]


def render_all(scenes: tuple[Scene, ...] = SCENES) -> Iterator[Rendered]:
    """Yield every frame of every scene, in order."""
    for scene in scenes:
        view = Street(scene)
        for index in range(scene.frames):
            yield view.render(index)
