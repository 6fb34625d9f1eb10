# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The process that measures one case (python -m ood_perception.bench.worker): see protocol."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ood_perception.bench.cases import Case
from ood_perception.bench.flops import count_flops
from ood_perception.bench.machine import peak_rss_mb
from ood_perception.bench.protocol import Measure, serve
from ood_perception.bench.stages import FramesInStages
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.plan import plan_for
from ood_perception.errors import OodPerceptionError
from ood_perception.types import JsonDict

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
        'bundle': facts_of(bundle),
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
    head = next((one for one in manifest.heads if one.name == case.head), manifest.heads[0])
    classes = () if case.classes == ALL else case.classes
    if not case.classes and head.selection == 'min':
        classes = tuple(name for name in head.compiled_classes if name in manifest.in_distribution)
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


def facts_of(bundle: Bundle) -> JsonDict:
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
