# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What an engine compiles: the stages of the chosen head, cut to the chosen classes; and for
`precision: auto` the fastest that this machine computes and whose measured cost is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ood_perception.bundle.manifest import HeadSpec, Manifest, StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.cpu import EXACT_BITS
from ood_perception.engines.graphs.head_cuts import slice_head
from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.int8 import (
    INT8,
    VERSION,
    measured_as,
    quantised,
    quantization_path,
    read_quantization,
)
from ood_perception.errors import EngineError
from ood_perception.files import sha256_of
from ood_perception.types import JsonDict


@dataclass(frozen=True)
class Plan:
    """
    What to compile.

    head: the chosen head. compiled_classes: classes of its in_distribution input.
    stages: in the order of running. model: per stage an ONNX file, or the bytes of a cut graph.
    """

    head: HeadSpec
    compiled_classes: tuple[str, ...]
    stages: tuple[StageSpec, ...]
    models: tuple[Path | bytes, ...]


class PlannedEngine(Engine):
    """An engine of the stages of a plan, which subclasses compile."""

    _plan: Plan

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        super().__init__(bundle.manifest, options)

    @property
    def head(self) -> HeadSpec:
        """The head that was compiled."""
        return self._plan.head

    @property
    def compiled_classes(self) -> tuple[str, ...]:
        return self._plan.compiled_classes


def check_choice(manifest: Manifest, options: EngineOptions) -> None:
    """Raise EngineError for an unknown head or class, before anything is compiled."""
    _classes(head_of(manifest, options), options.compiled_classes)


def plan_for(bundle: Bundle, options: EngineOptions) -> Plan:
    """Return what to compile; EngineError for an unknown head or class."""
    manifest = bundle.manifest
    head = head_of(manifest, options)
    classes = _classes(head, options.compiled_classes)
    stages = tuple(stage for stage in manifest.stages if _needed(stage, manifest, head))
    models: list[Path | bytes] = []
    for stage in stages:
        cut = head.surprisal in stage.outputs and classes != head.compiled_classes
        path = bundle.stage_path(stage)
        keep = [head.compiled_classes.index(name) for name in classes]
        models.append(slice_head(path, keep, head.surprisal, head.labels) if cut else path)
    return Plan(head, classes, stages, tuple(models))


def quantised_models(bundle: Bundle, plan: Plan, weight_bits: int) -> Plan:
    """
    Return the plan with int8 graphs in the place of the stages that may run in less than float32.

    weight_bits: of the weights, 8 or 7 (engines.cpu says which this CPU multiplies exactly).

    The graph is derived from float32 graph, weights and quantisation facts once, and kept in the
    cache. Raises EngineError where the bundle has no facts, BundleError where they do not fit.
    """
    path = quantization_path(bundle)
    models = [
        _quantised(bundle, stage, path, weight_bits) if stage.reduced_precision else model
        for stage, model in zip(plan.stages, plan.models, strict=True)
    ]
    return replace(plan, models=tuple(models))


def _quantised(bundle: Bundle, stage: StageSpec, facts: Path, weight_bits: int) -> bytes:
    source = bundle.stage_path(stage)
    weights = source.parent / stage.external_data
    key = {
        'made': f'int8 graph, derivation {VERSION}',
        'graph': sha256_of(source),
        'weights': sha256_of(weights) if stage.external_data else '',
        'quantization': sha256_of(facts),
        'form': 'u8',
        'weight_bits': str(weight_bits),
    }

    def make() -> tuple[bytes, JsonDict]:
        ranges = read_quantization(facts)
        model = quantised(read_model(source), ranges, key['form'], weight_bits)
        return model.SerializeToString(deterministic=True), {'stage': stage.name}

    return compiled_cache.obtain(key, make)[0]


def head_of(manifest: Manifest, options: EngineOptions) -> HeadSpec:
    """Return the head that an engine is compiled for; EngineError where the bundle lacks it."""
    for head in manifest.heads:
        if options.head in ('', head.name):
            return head
    known = ', '.join(head.name for head in manifest.heads)
    raise EngineError(f'head {options.head!r}: bundle {manifest.name} has {known}')


def _classes(head: HeadSpec, wanted: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in wanted if name not in head.compiled_classes]
    if unknown:
        raise EngineError(
            f'compiled classes {", ".join(unknown)}: head {head.name} has etalons for '
            f'{", ".join(head.compiled_classes)}'
        )
    if not wanted or set(wanted) == set(head.compiled_classes):
        return head.compiled_classes
    if head.selection != 'min':
        raise EngineError(
            f'compiled classes {", ".join(wanted)}: head {head.name} ({head.selection}) needs all '
            f'of its classes; leave the option empty'
        )
    return tuple(name for name in head.compiled_classes if name in wanted)


def _needed(stage: StageSpec, manifest: Manifest, head: HeadSpec) -> bool:
    others = {other.surprisal for other in manifest.heads} - {head.surprisal}
    return not (others & set(stage.outputs)) or head.surprisal in stage.outputs


# The order of every measurement on CPUs with the instructions for it (docs/engines.md).
FASTEST_FIRST = ('int8', 'bf16', 'f32')
LARGEST_LOSS = 0.5  # points of average precision


@dataclass(frozen=True)
class Choice:
    """Precisions to try, fastest first, f32 last; passed_over: of the others -> reason."""

    precisions: tuple[str, ...]
    passed_over: dict[str, str] = field(default_factory=dict)

    def because(self, taken: str, refused: Mapping[str, str]) -> str:
        """Return why `taken` was taken, in words; refused: by the golden check."""
        reasons = {**self.passed_over, **refused}
        told = [f'not {name}: {reasons[name]}' for name in FASTEST_FIRST if name in reasons]
        return '; '.join([f'{taken} is the fastest that serves', *told])


def choose_precisions(
    manifest: Manifest,
    computes: Sequence[str],
    slow: Mapping[str, str],
    weight_bits: int = EXACT_BITS,
) -> Choice:
    """
    Return what `auto` tries.

    computes: the engine's precisions. slow: precision -> why it does not pay on this machine.
    weight_bits: of int8 on this machine; with 7 the loss that counts was measured with 7.
    bf16 is taken without figures, too, as bundles made before they were measured expect; int8
    needs the ranges of the activations, so its figures are there.
    """
    taken, reasons = [], {}
    for name in FASTEST_FIRST[:-1]:
        key = measured_as(name, weight_bits)
        spec = manifest.precisions.get(key)
        if name not in computes:
            reasons[name] = 'this engine does not compute it'
        elif name in slow:
            reasons[name] = slow[name]
        elif INT8 not in manifest.precisions and name == INT8:
            reasons[name] = 'the bundle holds no quantisation'
        elif spec is None and name == INT8:
            reasons[name] = (
                f'this CPU needs {weight_bits}-bit weights, whose loss the bundle does not hold '
                '(run `trainer quantize`)'
            )
        elif spec is not None and not spec.average_precision_loss < LARGEST_LOSS:
            reasons[name] = (
                f'it costs {spec.average_precision_loss:.2f} points of average precision, '
                f'{LARGEST_LOSS:g} are allowed'
            )
        else:
            taken.append(name)
    return Choice((*taken, 'f32'), reasons)
