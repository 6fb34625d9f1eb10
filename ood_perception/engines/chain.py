# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Stages run one after the other, joined by tensor names: what the CPU engines share."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ood_perception.bundle.manifest import Manifest, StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import MODES, EngineOptions
from ood_perception.engines.cpu import EXACT_BITS, SATURATES, Int8Products
from ood_perception.engines.int8 import INT8, LARGEST_CODE, measured_as
from ood_perception.engines.plan import (
    Choice,
    Plan,
    PlannedEngine,
    choose_precisions,
    plan_for,
    quantised_models,
)
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.types import EngineOutput, Float32Array, UInt8Array

FirstStage: TypeAlias = Callable[[Sequence[Any], Callable[[], Sequence[Any]]], Sequence[Any]]
"""(inputs, what computes the outputs from them) -> outputs."""


class ChainEngine(PlannedEngine):
    """
    An engine with one compiled model per stage; subclasses compile and run a single stage.

    name: as in engines.ENGINES. precisions: what it computes, plainest first.
    """

    name: ClassVar[str] = ''
    precisions: ClassVar[tuple[str, ...]] = ('f32',)
    first_stage: FirstStage | None = None
    """May answer the first stage, mostly the backbone, in the place of its model."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile every stage; EngineError names the stage that the runtime refuses."""
        super().__init__(bundle, options)
        self._check_options(options)
        self._precision = options.precision
        if options.precision == 'auto':
            self._precision = self.choice_for(bundle.manifest).precisions[0]
        self._plan = self._planned(plan_for(bundle, options))
        self._weight_bits = EXACT_BITS
        if self._precision == INT8:
            self._weight_bits = self._bits_of_weights()
            self._plan = quantised_models(bundle, self._plan, self._weight_bits)
        self._compiled: list[Any] = []
        for stage, model in zip(self._plan.stages, self._plan.models, strict=True):
            try:
                self._compiled.append(self._compile(stage, model))
            except OodPerceptionError:
                raise
            except Exception as error:  # each runtime has error classes of its own
                raise EngineError(
                    f'{type(self).__name__} cannot compile stage {stage.name} '
                    f'({bundle.stage_path(stage)}): {_first_line(error)}'
                ) from error

    def _check_options(self, options: EngineOptions) -> None:
        known = ', '.join(self.precisions)
        if options.precision not in ('auto', *self.precisions):
            raise EngineError(
                f'precision {options.precision!r}: engine {self.name} computes {known}; use one '
                'of them, auto or another engine'
            )
        if options.threads < 0:
            raise EngineError(f'threads {options.threads}: give a number, 0 = all cores')
        if options.mode not in MODES:
            raise EngineError(f'mode {options.mode!r}: use {" or ".join(MODES)}')
        if options.weight_bits not in (0, *LARGEST_CODE):
            bits = ', '.join(map(str, sorted(LARGEST_CODE)))
            raise EngineError(f'weight_bits {options.weight_bits}: use {bits} or 0 = as the CPU')

    def _planned(self, plan: Plan) -> Plan:
        """Return what is compiled in the place of the plan, where an engine splits stages."""
        return plan

    def _bits_of_weights(self) -> int:
        """Return the bits of int8 weights; EngineError where int8 would only cost."""
        if self.options.weight_bits:
            return self.options.weight_bits
        products = self.int8_products()
        if products.refused:
            raise EngineError(
                f'precision int8: {products.refused}; use f32, auto or engine onnxruntime'
            )
        return products.weight_bits

    @classmethod
    @abstractmethod
    def int8_products(cls) -> Int8Products:
        """Return how this runtime multiplies bytes on this CPU."""

    @classmethod
    def slow_precisions(cls) -> dict[str, str]:
        """Return the precisions that do not pay on this machine, and why."""
        slower = cls.int8_products().slower
        return {INT8: slower} if slower else {}

    @classmethod
    def choice_for(cls, manifest: Manifest) -> Choice:
        """Return what `auto` tries with a bundle on this machine."""
        bits = cls.int8_products().weight_bits
        return choose_precisions(manifest, cls.precisions, cls.slow_precisions(), bits)

    @property
    def measured_as(self) -> str:
        name = measured_as(self._precision, self._weight_bits)
        return name if name in self.manifest.precisions else self._precision

    @property
    def precision_facts(self) -> dict[str, str]:
        """Precision and, where weights are rounded more than int8 asks for, how and why."""
        if self._weight_bits == EXACT_BITS:
            return {'precision': self._precision}
        why = '' if self.options.weight_bits else f' ({SATURATES})'
        return {'precision': self._precision, 'rounding': f'{self._weight_bits}-bit weights{why}'}

    @abstractmethod
    def _compile(self, stage: StageSpec, model: Any) -> Any:
        """Return one compiled stage; model is an ONNX file's path or its bytes."""

    @abstractmethod
    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        """Run one compiled stage: inputs and outputs in the order of its StageSpec."""

    def _run(self, image: UInt8Array, in_distribution: Float32Array) -> EngineOutput:
        tensors: dict[str, Any] = {'image': image, 'in_distribution': in_distribution}
        stage_ms: dict[str, float] = {}
        if not self._compiled:
            raise EngineError(f'{type(self).__name__} was closed: create a new engine')
        for stage, compiled in zip(self._plan.stages, self._compiled, strict=True):
            start = time.perf_counter()
            feeds = [tensors[name] for name in stage.inputs]
            compute = partial(self._infer, compiled, feeds)
            first = self.first_stage if stage is self._plan.stages[0] else None
            try:
                results = first(feeds, compute) if first else compute()
            except Exception as error:
                raise EngineError(
                    f'{type(self).__name__} failed in stage {stage.name} on a batch of '
                    f'{len(image)}: {_first_line(error)}'
                ) from error
            tensors.update(zip(stage.outputs, results, strict=True))
            stage_ms[stage.name] = (time.perf_counter() - start) * 1e3
        surprisal = np.array(tensors[self._plan.head.surprisal], dtype=np.float32)
        labels = np.array(tensors[self._plan.head.labels], dtype=np.uint8)
        return EngineOutput(surprisal, labels, stage_ms)

    def close(self) -> None:
        self._compiled = []


def frame_by_frame(stage: StageSpec, feeds: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a stage's inputs by name, for each frame of a batch alone."""
    return [
        {
            name: feed if name == 'in_distribution' else feed[row : row + 1]
            for name, feed in zip(stage.inputs, feeds, strict=True)
        }
        for row in range(len(feeds[0]))
    ]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
