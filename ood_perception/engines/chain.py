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

from ood_perception.bundle.manifest import HeadSpec, StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import MODES, Engine, EngineOptions
from ood_perception.engines.choose import choose_precisions
from ood_perception.engines.stages import Plan, plan_for, quantised_models
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.types import EngineOutput, Float32Array, UInt8Array

FirstStage: TypeAlias = Callable[[Sequence[Any], Callable[[], Sequence[Any]]], Sequence[Any]]
"""(inputs, what computes the outputs from them) -> outputs."""


class ChainEngine(Engine):
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
        super().__init__(bundle.manifest, options)
        self._check_options(options)
        if options.precision == 'auto':
            chosen = choose_precisions(bundle.manifest, self.precisions, self.slow_precisions())
            self._precision = chosen.precisions[0]
        else:
            self._precision = options.precision
        self._plan: Plan = self._planned(plan_for(bundle, options))
        if self._precision == 'int8':
            self._plan = quantised_models(bundle, self._plan)
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

    def _planned(self, plan: Plan) -> Plan:
        """Return what is compiled in the place of the plan, where an engine splits stages."""
        return plan

    @classmethod
    def slow_precisions(cls) -> dict[str, str]:
        """Return the precisions that do not pay on this machine, and why."""
        return {}

    @property
    def head(self) -> HeadSpec:
        """The head that was compiled."""
        return self._plan.head

    @property
    def compiled_classes(self) -> tuple[str, ...]:
        """Names of the classes that in_distribution chooses from, in its order."""
        return self._plan.compiled_classes

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
        """Release the compiled stages."""
        self._compiled = []


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
