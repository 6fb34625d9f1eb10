# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node's model without the node: the same bundle, engine and settings from the same values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ood_perception.bundle.weights.completion import complete
from ood_perception.postprocess.tracking import Persistence

from .bundle.store import Bundle, default_bundle_path, load_bundle
from .engines import create_engine
from .engines.base import Engine, EngineOptions
from .errors import ConfigError
from .parameters.settings import DEFAULTS, PINNING, persistence_from, settings_from
from .pipeline import Pipeline
from .settings import Settings, chosen_classes
from .types import JsonDict

# what the bundle and the engine say of themselves, or what changes no result
_OF_ENGINE = (
    'bundle', 'weights', 'engine', 'precision', 'threads', 'engine_mode', 'pin_threads'
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """
    A pipeline with what it was made of; close the engine when it is done.

    persistence: when obstacles are announced. scale: size of the output images as a share.
    """

    bundle: Bundle
    engine: Engine
    pipeline: Pipeline
    values: Mapping[str, Any]
    persistence: Persistence

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


def open_model(given: Mapping[str, Any], tell: Callable[[str], None], max_batch: int = 1) -> Model:
    """
    Load, complete, compile and check as the node does.

    given: some of DEFAULTS. max_batch: most frames of a run. Raises an OodPerceptionError that
    says what is wrong.
    """
    values = {**DEFAULTS, **given}
    settings, persistence = settings_from(values), persistence_from(values)
    source = str(values['weights']) or None
    bundle = complete(load_bundle(values['bundle'] or default_bundle_path()), source, tell)
    options = EngineOptions(
        runtime=values['engine'],
        precision=values['precision'],
        threads=values['threads'],
        head=values['head'],
        compiled_classes=_classes_to_compile(bundle, values['head'], settings),
        max_batch=max_batch,
        mode=values['engine_mode'],
        pin_threads=PINNING[values['pin_threads']],
    )
    engine = create_engine(bundle, options)
    try:
        pipeline = Pipeline(bundle, engine, settings)
        if pipeline.doubt:
            tell(pipeline.doubt)
        return Model(bundle, engine, pipeline, values, persistence)
    except BaseException:
        engine.close()
        raise


def _classes_to_compile(bundle: Bundle, name: str, settings: Settings) -> tuple[str, ...]:
    """Return the chosen classes where the head has one model per class, as the node compiles."""
    manifest = bundle.manifest
    head = next((head for head in manifest.heads if head.name == name), manifest.heads[0])
    if head.selection != 'min':
        return ()
    chosen = chosen_classes(manifest, settings)
    without = [name for name in chosen if name not in head.compiled_classes]
    if without:
        raise ConfigError(
            f'in_distribution {", ".join(without)}: bundle {manifest.name} has no model of it; '
            f'choose from {", ".join(head.compiled_classes)}'
        )
    return tuple(name for name in head.compiled_classes if name in chosen)
