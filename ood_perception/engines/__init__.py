# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Engines by name: an explicit table, imported late; none is handed out untested."""

from __future__ import annotations

import dataclasses
import logging
from importlib import import_module
from typing import TypeVar

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.golden import (
    GoldenReport,
    GoldenVectors,
    check_golden,
    read_golden,
    vectors_by,
)
from ood_perception.engines.plan import PlannedEngine, check_choice
from ood_perception.engines.trial import try_first
from ood_perception.errors import BundleError, EngineError, OodPerceptionError

ENGINES = {
    'openvino': 'ood_perception.engines.openvino:OpenVinoEngine',
    'onnxruntime': 'ood_perception.engines.onnxruntime:OnnxRuntimeEngine',
    'faiss': 'ood_perception.engines.faiss:FaissEngine',
    'tensorrt': 'ood_perception.engines.tensorrt.engine:TensorRtEngine',
}
CPU_ENGINES = ('openvino', 'onnxruntime', 'faiss')
DEFAULT_RUNTIME = 'openvino'
_Kind = TypeVar('_Kind', bound=PlannedEngine)
_LOG = logging.getLogger(__name__)


def create_engine(bundle: Bundle, options: EngineOptions | None = None) -> Engine:
    """
    Compile a completed bundle and return its engine after it kept the golden vectors.

    An unknown bundle is tried in a process of its own first (engines.trial).
    Raises EngineError for an unknown runtime, precision, head or class, a graph that the runtime
    refuses, or numbers off the golden ones; BundleError where weights are still missing;
    DependencyError where the runtime is not installed.
    """
    return create_checked_engine(bundle, options)[0]


def create_checked_engine(
    bundle: Bundle, options: EngineOptions | None = None
) -> tuple[Engine, GoldenReport]:
    """Do as create_engine; return also how far the engine is from the golden vectors."""
    options = options or EngineOptions()
    _engine_class(options.runtime)  # what is unknown or missing is told before a trial
    check_choice(bundle.manifest, options)  # or auto would blame each precision in turn
    if not bundle.missing_weights:
        known = DEFAULT_RUNTIME if options.runtime == 'auto' else options.runtime
        try_first(bundle, dataclasses.replace(options, runtime=known))
    return checked_engine(bundle, options)


def checked_engine(bundle: Bundle, options: EngineOptions) -> tuple[Engine, GoldenReport]:
    """Do as create_checked_engine with a bundle that needs no trial, or in the trial itself."""
    kind = _engine_class(options.runtime)
    if bundle.missing_weights:
        files = ', '.join(stage.external_data for stage in bundle.missing_weights)
        raise BundleError(
            f'bundle {bundle.root} has no {files}: complete its weights first '
            '(compile_bundle does, or bundle.completion.complete)'
        )
    if options.precision == 'auto' and issubclass(kind, ChainEngine):
        return _fastest(kind, bundle, options)
    if options.precision == 'auto':
        return _first_exact(kind, bundle, options)
    return _checked(kind, bundle, options)


def _checked(
    kind: type[_Kind], bundle: Bundle, options: EngineOptions
) -> tuple[_Kind, GoldenReport]:
    engine = kind(bundle, options)
    try:
        report = check_golden(engine, bundle, _golden_for(engine, bundle))
    except OodPerceptionError:
        engine.close()
        raise
    return engine, report


def _fastest(
    kind: type[ChainEngine], bundle: Bundle, options: EngineOptions
) -> tuple[PlannedEngine, GoldenReport]:
    """Return the engine of the fastest precision that keeps the golden vectors; say why."""
    choice = kind.choice_for(bundle.manifest)
    refused: dict[str, str] = {}
    for precision in choice.precisions:
        try:
            engine, report = _checked(
                kind, bundle, dataclasses.replace(options, precision=precision)
            )
        except EngineError as error:
            if precision == choice.precisions[-1]:
                raise
            _LOG.warning('precision %s is not used: %s', precision, error)
            refused[precision] = 'it missed the golden vectors on this machine'
            continue
        taken = ' with '.join(engine.precision_facts.values())
        engine.choice = choice.because(taken, refused)
        _LOG.info('precision auto: %s', engine.choice)
        break
    return engine, report


def _first_exact(
    kind: type[PlannedEngine], bundle: Bundle, options: EngineOptions
) -> tuple[PlannedEngine, GoldenReport]:
    """Return a GPU's engine in fp16, or in f32 where fp16 misses the golden vectors there."""
    half = kind(bundle, dataclasses.replace(options, precision='fp16'))
    try:
        return half, check_golden(half, bundle, _golden_for(half, bundle))
    except EngineError as error:
        half.close()
        _LOG.warning('precision fp16 is not used: %s', error)
    except OodPerceptionError:
        half.close()
        raise
    exact, report = _checked(kind, bundle, dataclasses.replace(options, precision='f32'))
    exact.choice = 'f32, since fp16 missed the golden vectors on this machine'
    return exact, report


def _engine_class(runtime: str) -> type[PlannedEngine]:
    known = DEFAULT_RUNTIME if runtime == 'auto' else runtime
    if known not in ENGINES:
        raise EngineError(f'engine {runtime!r}: use auto, {", ".join(sorted(ENGINES))}')
    module, name = ENGINES[known].split(':')
    kind: type[PlannedEngine] = getattr(import_module(module), name)
    return kind


def _golden_for(engine: PlannedEngine, bundle: Bundle) -> GoldenVectors:
    """
    Return golden vectors that the engine's classes can reproduce.

    A head cut down to other classes is held to what the whole head gives for them, after the
    whole head itself kept the bundle's vectors.
    """
    golden = read_golden(bundle, engine.head)
    if set(golden.classes) <= set(engine.compiled_classes):
        return golden
    with type(engine)(bundle, dataclasses.replace(engine.options, compiled_classes=())) as whole:
        check_golden(whole, bundle, golden)
        return vectors_by(whole, golden.image, engine.compiled_classes)
