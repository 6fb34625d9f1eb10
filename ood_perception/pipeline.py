# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Camera frames in, detections out: the one path that node, replay and evaluation share."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ood_perception.bundle.manifest import Manifest
from ood_perception.engines.base import Engine
from ood_perception.engines.plan import head_of
from ood_perception.errors import ConfigError, EngineError, ImageError
from ood_perception.image.geometry import Size, camera_area_of_cell, to_network
from ood_perception.image.views import merged
from ood_perception.postprocess.calibration import ClassSetCalibration, HeldOutSample, read_samples
from ood_perception.postprocess.mask import make_mask, obstacles_of
from ood_perception.postprocess.roi import below_line, class_table, fixed_region, scored_region
from ood_perception.ranging.ground import Scene
from ood_perception.settings import Settings, chosen_classes, class_ids, class_vector
from ood_perception.types import (
    BoolArray,
    Detection,
    EngineOutput,
    Float32Array,
    Frame,
    Geometry,
    StageTimes,
    UInt8Array,
)

if TYPE_CHECKING:
    from ood_perception.bundle.store import Bundle

__all__ = ['Pipeline', 'Settings']

_MOST_VIEWS = 64


@dataclass(frozen=True)
class _View:
    """
    How one camera at one image size is seen.

    geometries: of the whole image, then of the bundle's further views. fixed: the cells of the
    whole image's grid that may be scored.
    """

    geometries: tuple[Geometry, ...]
    fixed: BoolArray

    @property
    def geometry(self) -> Geometry:
        """How the whole image comes to the network: what detections are on."""
        return self.geometries[0]


@dataclass(frozen=True)
class _State:
    """Settings and engine that belong together; replaced as a whole, never changed."""

    settings: Settings
    engine: Engine
    in_distribution: Float32Array
    roi_classes: BoolArray
    obstacle_classes: BoolArray | None
    calibration: ClassSetCalibration | None
    doubt: str
    views: dict[tuple[str, Size], _View] = field(default_factory=dict)


class Pipeline:
    """
    Frames through geometry, engine, region of interest, mask and obstacles.

    `run` and `run_each` may be called by one thread at a time; settings and engine may be replaced
    from any other thread meanwhile: a run uses what was current when it began. The same frames
    give the same bits on every run.
    """

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings | None = None) -> None:
        """Raise ConfigError where bundle or engine lack what the settings ask for."""
        self.manifest = bundle.manifest
        self._samples = read_samples(bundle)
        self._writing = threading.Lock()
        self._running = threading.Lock()
        self._state = self._new_state(engine, settings or Settings())

    @property
    def settings(self) -> Settings:
        """The current settings; assign to replace them (ConfigError leaves the old ones)."""
        return self._state.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.update(settings=settings)

    @property
    def doubt(self) -> str:
        """What is to be said of the calibration of the chosen classes, '' = nothing."""
        return self._state.doubt

    def check(self, settings: Settings) -> None:
        """Raise ConfigError for a rate that the held-out pixels of the classes cannot bound."""
        self._doubt(self._state.engine, settings)

    def _doubt(self, engine: Engine, settings: Settings) -> str:
        sample = self._sample(engine, settings)
        chosen = chosen_classes(self.manifest, settings)
        return sample.doubt(chosen, settings.false_alarm_rate) if sample else ''

    def _sample(self, engine: Engine, settings: Settings) -> HeldOutSample | None:
        """Return the held-out pixels as the chosen views show them, None where there are none."""
        manifest = self.manifest
        sample = self._samples.get(head_of(manifest, engine.options).name)
        if sample is None or settings.views or not manifest.input.views:
            return sample
        if sample.views == 1:
            raise ConfigError(
                f'views is false: bundle {manifest.name} is calibrated for all its views together '
                'only; leave views true, or pack the bundle again'
            )
        return sample.of_whole_image()

    @property
    def engine(self) -> Engine:
        """The current engine."""
        return self._state.engine

    @property
    def scene(self) -> Scene:
        """What the classes mean by the current settings."""
        state = self._state
        named = state.obstacle_classes
        obstacle = np.zeros(256, dtype=bool) if named is None else named
        return Scene(state.roi_classes, obstacle, state.settings.roi.bridge)

    @property
    def grid_size(self) -> Size:
        """The size of the score grid, (gh, gw)."""
        return _grid_size(self.manifest, self._state.engine)

    def update(self, settings: Settings | None = None, engine: Engine | None = None) -> None:
        """Replace settings, engine or both at once; ConfigError changes nothing."""
        with self._writing:
            old = self._state
            self._state = self._new_state(engine or old.engine, settings or old.settings)

    def close(self, engine: Engine) -> None:
        """Close an engine of this pipeline once no run uses it."""
        with self._running:
            engine.close()

    def run(self, frames: Sequence[Frame]) -> list[Detection]:
        """
        Return one detection per frame, in order; all frames go through the engine as one batch.

        frames: images of any sizes and cameras. Raises ImageError for the first frame that is no
        image (see run_each) and EngineError when the engine fails.
        """
        detections = []
        for result in self.run_each(frames):
            if isinstance(result, ImageError):
                raise result
            detections.append(result)
        return detections

    def run_each(self, frames: Sequence[Frame]) -> list[Detection | ImageError]:
        """Do as `run`, but return a bad frame's ImageError in its place; the others go on."""
        results: dict[int, Detection | ImageError] = {}
        inputs: list[_Input] = []
        with self._running:
            state = self._state
            for index, frame in enumerate(frames):
                try:
                    inputs.append(_prepare(frame, index, self._view(state, frame)))
                except ImageError as error:
                    results[index] = error
            for item, detection in zip(inputs, _infer(state, inputs), strict=True):
                results[item.index] = detection
        return [results[index] for index in range(len(frames))]

    def _new_state(self, engine: Engine, settings: Settings) -> _State:
        manifest = self.manifest
        names = settings.roi.classes or manifest.ground_classes
        ids = class_ids(manifest, names, 'roi classes')
        vector = class_vector(manifest, engine, settings)
        sample = self._sample(engine, settings)
        calibration = sample.calibration(chosen_classes(manifest, settings)) if sample else None
        obstacles = class_ids(manifest, settings.obstacle_classes, 'obstacle_classes')
        named = class_table(obstacles) if obstacles else None
        doubt = self._doubt(engine, settings)
        return _State(settings, engine, vector, class_table(ids), named, calibration, doubt)

    def _view(self, state: _State, frame: Frame) -> _View:
        """Return the frame's view, kept per camera and image size."""
        _check_image(frame)
        key = (frame.camera, (frame.image.shape[0], frame.image.shape[1]))
        view = state.views.get(key)
        if view is None:
            geometries = self.manifest.input.geometries(key[1], state.settings.views)
            grid_size = _grid_size(self.manifest, state.engine)
            fixed = fixed_region(state.settings.roi, frame.camera, geometries[0], grid_size)
            fixed.setflags(write=False)  # detections share it
            view = _View(geometries, fixed)
            if len(state.views) >= _MOST_VIEWS:
                state.views.clear()
            state.views[key] = view
        return view


@dataclass(frozen=True)
class _Input:
    """A frame that is ready for the engine: V images, uint8 (h, w, 3), the whole one first."""

    frame: Frame
    index: int
    view: _View
    images: list[UInt8Array]
    preprocess_ms: float


def _grid_size(manifest: Manifest, engine: Engine) -> Size:
    return manifest.input.grid(head_of(manifest, engine.options).upsampling)


def _check_image(frame: Frame) -> None:
    image = frame.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(
            f'frame of camera {frame.camera!r} is {image.dtype} {image.shape}, expected uint8 '
            '(H, W, 3) RGB with H, W >= 1'
        )


def _prepare(frame: Frame, index: int, view: _View) -> _Input:
    start = time.perf_counter()
    images = [to_network(frame.image, geometry) for geometry in view.geometries]
    return _Input(frame, index, view, images, _since(start))


def _infer(state: _State, inputs: Sequence[_Input]) -> list[Detection]:
    """Run the engine on the batch and turn its output into detections."""
    if not inputs:
        return []
    start = time.perf_counter()
    batch = np.stack([image for item in inputs for image in item.images])
    output = state.engine.run(batch, state.in_distribution)
    inference_ms = _since(start)
    _check_output(output, len(batch), inputs[0].view.fixed.shape)
    views = len(inputs[0].images)
    return [
        _detect(
            state,
            item,
            output.surprisal[first : first + views],
            output.labels[first],
            inference_ms,
        )
        for first, item in zip(range(0, len(batch), views), inputs, strict=True)
    ]


def _check_output(output: EngineOutput, images: int, grid_size: tuple[int, ...]) -> None:
    expected = (images, *grid_size)
    if output.surprisal.shape != expected or output.labels.shape != expected:
        raise EngineError(
            f'engine returned surprisal {output.surprisal.shape} and labels '
            f'{output.labels.shape}, expected {expected}: the bundle and the engine differ'
        )
    _check_finite(output.surprisal)


def _check_finite(surprisal: Float32Array) -> None:
    # A NaN is below every threshold: it would hide an obstacle without a word.
    if not np.isfinite(surprisal).all():
        raise EngineError(
            'engine returned surprisal that is not finite: its frames are dropped; check the '
            'bundle with inspect_bundle, or use precision f32'
        )


def _detect(
    state: _State,
    item: _Input,
    surprisal: Float32Array,
    labels: UInt8Array,
    inference_ms: float,
) -> Detection:
    """Return one frame's detection from its views' surprisal (V, gh, gw) and its labels."""
    start = time.perf_counter()
    settings, view = state.settings, item.view
    # Copies: the engine may use its buffers again, and a batch would live as long as one frame.
    whole, *crops = surprisal.astype(np.float32)
    surprisal, labels = merged(whole, crops, view.geometries), labels.astype(np.uint8)
    if state.calibration is not None:
        surprisal = state.calibration(surprisal)
    _check_finite(surprisal)
    roi, horizon = settings.roi, _horizon(item)
    region = (view.fixed, state.roi_classes, roi.bridge, horizon, roi.margin)
    scored = scored_region(roi.mode, labels, *region)
    named = None if state.obstacle_classes is None else state.obstacle_classes[labels]
    size = (surprisal.shape[0], surprisal.shape[1])
    mask, components = make_mask(
        surprisal,
        scored,
        settings.false_alarm_rate,
        seed_rate=settings.hysteresis_rate,
        minimum_area=settings.minimum_area,
        cell_area=camera_area_of_cell(view.geometry, size),
        named=named,
    )
    obstacles = obstacles_of(components, view.geometry)
    times = StageTimes(item.preprocess_ms, inference_ms, _since(start))
    rate, geometry = settings.false_alarm_rate, view.geometry
    return Detection(
        item.frame, surprisal, labels, scored, mask, obstacles, geometry, rate, times, view.fixed
    )


def _horizon(item: _Input) -> BoolArray | None:
    """Return the cells below the frame's horizon, None where it brings none."""
    line = item.frame.horizon
    if line is None:
        return None
    return below_line(line, item.view.geometry, item.view.fixed.shape)


def _since(start: float) -> float:
    """Return the milliseconds since `start` of time.perf_counter()."""
    return (time.perf_counter() - start) * 1e3
