# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The one way from parameters to bundle, engine and pipeline, in the node and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ood_perception.bundle.manifest import HeadSpec, Manifest
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.plan import head_of
from ood_perception.errors import ConfigError
from ood_perception.parameters.settings import PINNING, persistence_from, settings_from, strings
from ood_perception.parameters.table import BY_NAME, DEFAULTS, check_value
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.drift import CalibrationHealth, DriftMonitor
from ood_perception.postprocess.tracking import Persistence
from ood_perception.settings import Settings, chosen_classes, class_ids
from ood_perception.types import Detection, JsonDict, Tell

# what the bundle and the engine say of themselves, or what changes no result
_OF_ENGINE = (
    'bundle', 'weights', 'require_signature', 'engine', 'precision', 'threads', 'engine_mode',
    'pin_threads'
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """
    A pipeline with what it was made of; close the engine when it is done.

    values: the parameters. persistence: when obstacles are announced.
    """

    bundle: Bundle
    pipeline: Pipeline
    values: Mapping[str, Any]
    persistence: Persistence

    @property
    def engine(self) -> Engine:
        """The pipeline's engine."""
        return self.pipeline.engine

    @property
    def head(self) -> HeadSpec:
        """The head that the engine serves."""
        return head_of(self.bundle.manifest, self.engine.options)

    @property
    def scale(self) -> float:
        """Size of the output images as a fraction of the camera's."""
        return float(self.values['output_scale'])

    def to_json(self) -> JsonDict:
        """Return what the results depend on."""
        manifest = self.bundle.manifest
        return {
            'bundle': {'name': manifest.name, 'sha256': self.bundle.sha256},
            'engine': dict(self.engine.description),
            'compiled_classes': list(self.engine.compiled_classes),
            'in_distribution': list(chosen_classes(manifest, self.pipeline.settings)),
            'settings': {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.values.items()
                if name not in _OF_ENGINE
            },
        }


def open_model(
    given: Mapping[str, Any],
    tell: Tell | None = None,
    max_batch: int = 1,
    create: Callable[[Bundle, EngineOptions], Engine] = create_engine,
    progress: Tell | None = None,
) -> Model:
    """
    Load, complete, compile and check: the node's model, in the node and without it.

    given: the node's parameters, all or some. tell: takes what a user should know meanwhile.
    max_batch: most frames of a run. create: makes the engine. progress: takes what lasts, such as
    a download of weights, None: tell does. Raises an OodPerceptionError that says what is wrong.
    """
    values = {**DEFAULTS, **given}
    for name in DEFAULTS:
        check_value(BY_NAME[name], values[name])
    settings, persistence = settings_from(values), persistence_from(values)
    source = str(values['weights']) or None
    bundle = complete(
        load_bundle(values['bundle'], require_signature=strings(values['require_signature'])),
        source,
        progress or tell,
    )
    options = EngineOptions(
        runtime=values['engine'],
        precision=values['precision'],
        threads=values['threads'],
        head=values['head'],
        compiled_classes=classes_to_compile(bundle.manifest, values['head'], settings),
        max_batch=max_batch * bundle.manifest.input.images,
        build=values.get('on_missing_engine', 'compile') == 'compile',
        mode=values['engine_mode'],
        pin_threads=PINNING[values['pin_threads']],
    )
    pipeline = open_pipeline(bundle, options, settings, create)
    if pipeline.doubt and tell is not None:
        tell(pipeline.doubt)
    return Model(bundle, pipeline, values, persistence)


def open_pipeline(
    bundle: Bundle,
    options: EngineOptions,
    settings: Settings,
    create: Callable[[Bundle, EngineOptions], Engine] = create_engine,
) -> Pipeline:
    """Compile a completed bundle and return its pipeline; close its engine when it is done."""
    engine = create(bundle, options)
    try:
        return Pipeline(bundle, engine, settings)
    except BaseException:
        engine.close()
        raise


class CalibrationMonitors:
    """Whether each camera's frames fit the calibration of a pipeline's bundle."""

    def __init__(self) -> None:
        self._monitors: dict[str, DriftMonitor] = {}

    def reset(self) -> None:
        """Start again: other classes may count as normal now."""
        self._monitors = {}

    def add(self, pipeline: Pipeline, detection: Detection) -> DriftMonitor:
        """Take one frame's detection, as the pipeline gave it; return its camera's monitor."""
        monitor = self._monitors.get(detection.frame.camera)
        if monitor is None:
            manifest = pipeline.manifest
            names = chosen_classes(manifest, pipeline.settings)
            ids = class_ids(manifest, names, 'in_distribution')
            cells = head_of(manifest, pipeline.engine.options).upsampling
            monitor = DriftMonitor(ids, cells, manifest.calibration)
            self._monitors[detection.frame.camera] = monitor
        monitor.add(detection)
        return monitor

    def health(self, camera: str) -> CalibrationHealth:
        """Return what is known of a camera."""
        monitor = self._monitors.get(camera)
        return monitor.health if monitor else CalibrationHealth()


def classes_to_compile(
    manifest: Manifest, head_name: str, settings: Settings, have: Sequence[str] = ()
) -> tuple[str, ...]:
    """
    Return the classes to compile the head for, () where `have` suffices or it has no choice.

    A compiled head pays for every class that it holds, so it holds the chosen ones only. Raises
    ConfigError for a class that the head lacks.
    """
    head = next((head for head in manifest.heads if head.name == head_name), manifest.heads[0])
    chosen = chosen_classes(manifest, settings)
    without = [name for name in chosen if name not in head.compiled_classes]
    if without and (head.selection == 'min' or head.set_calibration):
        raise ConfigError(
            f'in_distribution {", ".join(without)}: bundle {manifest.name} knows the class and '
            f'has no model of it; choose from {", ".join(head.compiled_classes)}'
        )
    if head.selection != 'min' or set(chosen) <= set(have):
        return ()
    return tuple(name for name in head.compiled_classes if name in chosen)
