# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Camera frames through the pipeline, with the time of every stage."""

from __future__ import annotations

import time

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.engines.golden import read_golden
from ood_perception.image.geometry import camera_window
from ood_perception.pipeline import Pipeline
from ood_perception.settings import Settings, head_of
from ood_perception.types import EngineOutput, Float32Array, Frame, UInt8Array

Times = dict[str, list[float]]


class StageRecorder(Engine):
    """An engine that remembers the stage times of its last run."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.manifest, engine.options)
        self._engine = engine
        self.stage_ms: dict[str, float] = {}

    @property
    def compiled_classes(self) -> tuple[str, ...]:
        """As the engine's."""
        return self._engine.compiled_classes

    @property
    def description(self) -> dict[str, str]:
        """As the engine's."""
        return self._engine.description

    def _run(self, image: UInt8Array, in_distribution: Float32Array) -> EngineOutput:
        output = self._engine.run(image, in_distribution)
        self.stage_ms = output.stage_ms
        return output

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class FramesInStages:
    """The pipeline on one picture per camera, again and again."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        camera: tuple[int, int],
        batch: int,
        views: str = 'all',
    ) -> None:
        """Make pictures of the given height and width from the bundle's golden input; see Case."""
        self._engine = StageRecorder(engine)
        settings = Settings(in_distribution=engine.compiled_classes, views=views == 'all')
        self._pipeline = Pipeline(bundle, self._engine, settings)
        golden = read_golden(bundle, head_of(bundle.manifest, engine)).image[0]
        rows, columns = (
            np.arange(length) * have // length
            for length, have in zip(camera, golden.shape, strict=False)
        )
        picture = np.ascontiguousarray(golden[rows][:, columns])
        if views == 'crop':
            rows, columns = camera_window(bundle.manifest.input.geometries(camera)[1])
            picture = np.ascontiguousarray(picture[rows, columns])
        self._frames = [Frame(picture, f'camera_{index}') for index in range(batch)]

    def measure(self, runs: int) -> Times:
        """
        Return wall times in milliseconds (runs,) per stage and of the whole run ('total').

        preprocess and postprocess are sums over the batch; 'inference' is what the engine took,
        its stages are beside it by name.
        """
        rows = [self._measure() for _ in range(runs)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _measure(self) -> dict[str, float]:
        start = time.perf_counter()
        detections = self._pipeline.run(self._frames)
        total = (time.perf_counter() - start) * 1e3
        times = [detection.times for detection in detections]
        return {
            'preprocess': sum(one.preprocess_ms for one in times),
            'inference': times[0].inference_ms,
            **self._engine.stage_ms,
            'postprocess': sum(one.postprocess_ms for one in times),
            'total': total,
        }
