# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The process that measures one case (python -m ood_perception.bench.worker): see protocol."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from ood_perception.bench.cases import Case
from ood_perception.bench.graph_costs import count_flops
from ood_perception.bench.machine import peak_rss_mb
from ood_perception.bench.protocol import Measure, Times, serve
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.golden import read_golden
from ood_perception.engines.plan import head_of, plan_for
from ood_perception.errors import OodPerceptionError
from ood_perception.image.geometry import camera_window
from ood_perception.loader import classes_to_compile
from ood_perception.pipeline import Pipeline
from ood_perception.settings import Settings
from ood_perception.types import Frame, JsonDict


class FramesInStages:
    """The pipeline on one image per camera, again and again."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        camera: tuple[int, int],
        batch: int,
        views: str = 'all',
    ) -> None:
        """Make images of the given height and width from the bundle's golden input; see Case."""
        self._engine = engine
        settings = Settings(in_distribution=engine.compiled_classes, views=views == 'all')
        self._pipeline = Pipeline(bundle, engine, settings)
        golden = read_golden(bundle, head_of(bundle.manifest, engine.options)).image[0]
        rows, columns = (
            np.arange(length) * have // length
            for length, have in zip(camera, golden.shape, strict=False)
        )
        image = np.ascontiguousarray(golden[rows][:, columns])
        if views == 'crop':
            rows, columns = camera_window(bundle.manifest.input.geometries(camera)[1])
            image = np.ascontiguousarray(image[rows, columns])
        self._frames = [Frame(image, f'camera_{index}') for index in range(batch)]

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
            **self._engine.last.stage_ms,
            'postprocess': sum(one.postprocess_ms for one in times),
            'total': total,
        }


ALL = ('all',)


def prepare(task: JsonDict) -> tuple[JsonDict, Measure, Callable[[], JsonDict]]:
    """Compile the engine of a case (its fields by name) and make its frames."""
    case = Case(**{**task, 'classes': tuple(task['classes']), 'camera': tuple(task['camera'])})
    start = time.perf_counter()
    bundle = complete(load_bundle(case.bundle), case.weights or None)
    loaded = time.perf_counter()
    options = options_of(case, bundle.manifest)
    engine, report = create_checked_engine(bundle, options)
    compiled = time.perf_counter()
    frames = FramesInStages(bundle, engine, case.camera, case.batch, case.views)
    facts = {
        'bundle': metadata_of(bundle),
        'engine': engine.description,
        'classes': list(engine.compiled_classes),
        'load_ms': (loaded - start) * 1e3,
        'compile_ms': (compiled - loaded) * 1e3,
        'images': images_of(case, bundle.manifest),
        'operations': operations(bundle, options, images_of(case, bundle.manifest)),
        'golden': report.to_json(),
    }

    def finish() -> JsonDict:
        engine.close()
        return {'rss_mb': peak_rss_mb()}

    return facts, frames.measure, finish


def options_of(case: Case, manifest: Manifest) -> EngineOptions:
    """Return the engine's options; without a choice, the classes that the node compiles."""
    classes = () if case.classes == ALL else case.classes
    if not case.classes:
        classes = classes_to_compile(manifest, case.head, Settings())
    precision, _, bits = case.precision.partition(':')
    return EngineOptions(
        *(case.runtime, precision, case.threads, case.head, classes),
        max_batch=images_of(case, manifest),
        mode=case.mode,
        weight_bits=int(bits or 0),
    )


def images_of(case: Case, manifest: Manifest) -> int:
    """Return how many images one run of a case holds: of every camera, each view that is seen."""
    return case.batch * (manifest.input.images if case.views == 'all' else 1)


def metadata_of(bundle: Bundle) -> JsonDict:
    """Return what a bundle's times depend on."""
    manifest = bundle.manifest
    size = manifest.input
    return {
        'name': manifest.name,
        'sha256': bundle.sha256,
        'height': size.height,
        'width': size.width,
        'patch': size.patch,
        'backbone': str(manifest.provenance.get('backbone', '')),
    }


def operations(bundle: Bundle, options: EngineOptions, batch: int) -> dict[str, float]:
    """Return the operations of each stage's matrix products; {} where they cannot be counted."""
    plan = plan_for(bundle, options)
    try:
        return {
            stage.name: count_flops(model, batch)
            for stage, model in zip(plan.stages, plan.models, strict=True)
        }
    except OodPerceptionError:  # a figure beside the times, none without onnx
        return {}


if __name__ == '__main__':
    sys.exit(serve(prepare))
