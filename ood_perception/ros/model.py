# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundle, engine and pipeline as the node holds them; new classes compile in the background."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

from ood_perception.bundle.manifest import HeadSpec
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import CPU_ENGINES, create_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.errors import (
    ConfigError,
    DependencyError,
    EngineError,
    OodPerceptionError,
)
from ood_perception.parameters.settings import PINNING, Values, settings_from
from ood_perception.pipeline import Pipeline
from ood_perception.ranging.ground import Scene
from ood_perception.ros.diagnostics import EngineSituation
from ood_perception.settings import Settings, chosen_classes
from ood_perception.types import Detection, Frame


class Model:
    """
    The loaded bundle with its engine. `run` belongs to the worker's thread, `apply` to any.

    log: called with (severity, text), severity 'info', 'warning' or 'error'.
    """

    def __init__(self, values: Values, log: Callable[[str, str], None]) -> None:
        """Load, complete, compile and check; raises an OodPerceptionError that says it all."""
        self._log = log
        self._lock = threading.Lock()  # guards what is wanted and what is compiled
        self._running = threading.Lock()  # held by a run, so that no engine closes under it
        self._message = ''
        self._compiler: threading.Thread | None = None
        self._bundle = complete(
            load_bundle(values['bundle'] or default_bundle_path()), _source(values)
        )
        self.manifest = self._bundle.manifest
        self._options = EngineOptions(
            runtime=values['engine'],
            precision=values['precision'],
            threads=values['threads'],
            head=values['head'],
            max_batch=max(len(values['cameras']), 1),
            mode=values['engine_mode'],
            pin_threads=PINNING[values['pin_threads']],
            build=values['on_missing_engine'] == 'compile',
        )
        self._may_fall_back = values['on_missing_engine'] == 'fallback_cpu'
        self._degraded = ''
        self._wanted = settings_from(values)
        self._engine = self._create(self._classes_to_compile(self._wanted, ()))
        try:
            self._pipeline = Pipeline(self._bundle, self._engine, self._wanted)
        except OodPerceptionError:
            self._engine.close()
            raise
        self._say_doubt('')

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the bundle's classes."""
        return tuple(spec.name for spec in self.manifest.classes)

    @property
    def scene(self) -> Scene:
        """What the classes mean for the ground and for obstacles."""
        return self._pipeline.scene

    @property
    def settings(self) -> Settings:
        """What the next frame is made with."""
        return self._pipeline.settings

    def run(self, frames: Sequence[Frame]) -> list[Detection | OodPerceptionError]:
        """Return per frame its detection, or the ImageError that refuses it."""
        with self._running:
            return list(self._pipeline.run_each(frames))

    def check(self, values: Values) -> None:
        """Raise ConfigError if `apply` could not take these values; nothing is changed."""
        settings = settings_from(values)
        self._chosen(settings)
        self._pipeline.check(settings)

    def apply(self, values: Values) -> None:
        """
        Take dynamic parameters over from the next frame on.

        Classes that the head was not compiled for are compiled on a thread of their own; until
        that is done frames go on with the old classes, and diagnostics say so.
        """
        with self._lock:
            self._wanted = settings_from(values)
            self._message, doubt = '', self._pipeline.doubt
            if not self._classes_to_compile(self._wanted, self._engine.compiled_classes):
                self._pipeline.update(settings=self._wanted)
                self._say_doubt(doubt)
                return
            old = self._pipeline.settings.in_distribution
            self._pipeline.update(settings=dataclasses.replace(self._wanted, in_distribution=old))
            if self._compiler is None:
                self._compiler = threading.Thread(
                    target=self._compile, name='compile', daemon=True
                )
                self._compiler.start()

    def _say_doubt(self, before: str) -> None:
        """Log what is to be said of the calibration of the classes, once."""
        if self._pipeline.doubt and self._pipeline.doubt != before:
            self._log('warning', self._pipeline.doubt)

    def situation(self) -> EngineSituation:
        """Return the state for diagnostics."""
        compiler, message = self._compiler, self._message
        settings = self._pipeline.settings
        chosen = chosen_classes(self.manifest, settings)
        values = {
            'bundle': self.manifest.name,
            'bundle_path': str(self._bundle.root),
            'bundle_sha256': self._bundle.sha256,
            **self._engine.description,
            'compiled_classes': ', '.join(self._engine.compiled_classes),
            'in_distribution': ', '.join(chosen),
            'false_alarm_rate': f'{settings.false_alarm_rate:g}',
        }
        message = '; '.join(filter(None, (self._degraded, message, self._pipeline.doubt)))
        if compiler is not None:
            wanted = ', '.join(chosen_classes(self.manifest, self._wanted))
            return EngineSituation('compiling', f'the head for {wanted}', values)
        return EngineSituation('ready', message, values)

    def close(self) -> None:
        """Wait for a compilation in work and release the engine."""
        compiler = self._compiler
        if compiler is not None:
            compiler.join()
        with self._running:
            self._engine.close()

    @property
    def _head(self) -> HeadSpec:
        named = (head for head in self.manifest.heads if head.name == self._options.head)
        return next(named, self.manifest.heads[0])

    def _chosen(self, settings: Settings) -> tuple[str, ...]:
        """Return the classes that count as normal; ConfigError for one that the head lacks."""
        chosen, head = chosen_classes(self.manifest, settings), self._head
        without = [name for name in chosen if name not in head.compiled_classes]
        if without and (head.selection == 'min' or head.set_calibration):
            raise ConfigError(
                f'in_distribution {", ".join(without)}: bundle {self.manifest.name} knows the '
                f'class and has no model of it; choose from {", ".join(head.compiled_classes)}'
            )
        return chosen

    def _classes_to_compile(self, settings: Settings, have: Sequence[str]) -> tuple[str, ...]:
        """
        Return the classes to compile the head for, () where `have` suffices.

        A compiled head pays for every class that it holds, so it holds the chosen ones only.
        """
        chosen, head = self._chosen(settings), self._head
        if head.selection != 'min' or set(chosen) <= set(have):
            return ()
        return tuple(name for name in head.compiled_classes if name in chosen)

    def _create(self, compiled_classes: tuple[str, ...]) -> Engine:
        options = dataclasses.replace(self._options, compiled_classes=compiled_classes)
        try:
            return create_engine(self._bundle, options)
        except (EngineError, DependencyError) as error:
            if not self._may_fall_back or options.runtime in ('auto', *CPU_ENGINES):
                raise
            self._fall_back(options.runtime, error)
        return self._create(compiled_classes)

    def _fall_back(self, runtime: str, error: OodPerceptionError) -> None:
        """Use the CPU engine from now on; diagnostics warn as long as it is so."""
        self._options = dataclasses.replace(self._options, runtime='auto', precision='auto')
        self._degraded = f'degraded, the CPU engine runs instead of {runtime}: {error}'
        self._log('warning', self._degraded)

    def _compile(self) -> None:
        """Compile until the engine has the classes that are wanted by then."""
        while True:
            with self._lock:
                classes = self._classes_to_compile(self._wanted, self._engine.compiled_classes)
                if not classes:
                    self._compiler = None
                    return
            try:
                engine = self._create(classes)
            except Exception as error:  # the thread must not end with the state 'compiling'
                self._give_up(classes, error)
                return
            self._swap(engine, classes)

    def _swap(self, engine: Engine, classes: tuple[str, ...]) -> None:
        with self._lock:
            settings = self._wanted
            if set(chosen_classes(self.manifest, settings)) - set(engine.compiled_classes):
                # Wanted changed meanwhile: serve what was compiled, the loop compiles again.
                settings = dataclasses.replace(settings, in_distribution=classes)
            self._pipeline.update(settings=settings, engine=engine)
            self._say_doubt('')
            old, self._engine = self._engine, engine
        with self._running:
            old.close()
        self._log('info', f'the head is compiled for {", ".join(classes)}')

    def _give_up(self, classes: tuple[str, ...], error: Exception) -> None:
        in_use = chosen_classes(self.manifest, self._pipeline.settings)
        text = (
            f'the head for {", ".join(classes)} could not be compiled ({error}); '
            f'{", ".join(in_use)} stay in use'
        )
        with self._lock:
            self._message, self._compiler = text, None
        self._log('error', text)


def _source(values: Values) -> str | None:
    return str(values['weights']) or None
