# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundle, engine and pipeline as the node holds them; new classes compile in the background."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

from ood_perception.bundle.manifest import MANIFEST_NAME
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import CPU_ENGINES, create_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.errors import BundleError, DependencyError, EngineError
from ood_perception.loader import classes_to_compile, open_model
from ood_perception.parameters.settings import Values, settings_from
from ood_perception.pipeline import Pipeline
from ood_perception.ros.diagnostics import EngineStatus
from ood_perception.settings import Settings, chosen_classes
from ood_perception.types import Tell

_CONFIGURE_AGAIN = 'deactivate, clean up and configure again'
_PATIENCE = 1.0


def _release(pipeline: Pipeline) -> None:
    """Close a pipeline's engine, in the background where a run hangs in it."""
    closing = threading.Thread(target=pipeline.close, args=(pipeline.engine,), daemon=True)
    closing.start()
    closing.join(_PATIENCE)


def _state_of(bundle: Bundle) -> tuple[int, ...]:
    """Return what changes when another bundle takes the place of this one."""
    try:
        found = bundle.path(MANIFEST_NAME).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


class Model:
    """
    The loaded bundle with its engine. The worker runs `pipeline`; `apply` is for any thread.

    log: called with (severity, text), severity 'info', 'warning' or 'error'.
    """

    def __init__(
        self,
        values: Values,
        log: Callable[[str, str], None],
        progress: Tell = lambda text: None,
    ) -> None:
        """
        Load, complete, compile and check; raises an OodPerceptionError that says it all.

        progress: told what takes long, such as the download of weights.
        """
        self._log = log
        self._lock = threading.Lock()  # guards what is requested and what is compiled
        self._message = ''
        self._closed = False
        self._compiler: threading.Thread | None = None
        self._may_fall_back = values['on_missing_engine'] == 'fallback_cpu'
        self._degraded = ''
        self._weights = str(values['weights']) or None
        self._options = EngineOptions()
        opened = open_model(
            values,
            max_batch=max(len(values['cameras']), 1),
            create=self._create,
            progress=progress,
        )
        self._bundle, self.pipeline = opened.bundle, opened.pipeline
        self.manifest = opened.bundle.manifest
        self._requested = self.pipeline.settings
        self._found = _state_of(self._bundle)
        self._log_doubt('')

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the bundle's classes."""
        return tuple(spec.name for spec in self.manifest.classes)

    @property
    def default_classes(self) -> dict[str, str]:
        """What an empty list of classes stands for, by parameter."""
        manifest = self.manifest
        ground = ', '.join(manifest.ground_classes)
        normal = ', '.join(manifest.in_distribution)
        return {'in_distribution': normal, 'roi.classes': ground, 'obstacle_classes': 'none'}

    def check(self, values: Values) -> None:
        """Raise ConfigError if `apply` could not take these values; nothing is changed."""
        settings = settings_from(values)
        self._classes_to_compile(settings)
        self.pipeline.check(settings)

    def apply(self, values: Values) -> None:
        """
        Take dynamic parameters over from the next frame on.

        Classes that the head was not compiled for are compiled on a thread of their own; until
        that is done frames go on with the old classes, and diagnostics say so.
        """
        with self._lock:
            self._requested = settings_from(values)
            self._message, doubt = '', self.pipeline.doubt
            if not self._classes_to_compile(self._requested):
                self.pipeline.update(settings=self._requested)
                self._log_doubt(doubt)
                return
            old = self.pipeline.settings.in_distribution
            self.pipeline.update(
                settings=dataclasses.replace(self._requested, in_distribution=old)
            )
            if self._compiler is None:
                self._compiler = threading.Thread(
                    target=self._compile, name='compile', daemon=True
                )
                self._compiler.start()

    @property
    def frame_seconds(self) -> float:
        """Seconds that a frame takes the engine alone, by the golden check; 0: not known."""
        views = self.manifest.input.images if self.pipeline.settings.views else 1
        return self.pipeline.engine.run_ms * views / 1e3

    @property
    def summary(self) -> str:
        """What serves, in a line: bundle, runtime, precision, input and the rate to expect."""
        spec, engine, settings = self.manifest.input, self.pipeline.engine, self.pipeline.settings
        images = spec.images if settings.views else 1
        words = [
            f'bundle {self.manifest.name} on {engine.description.get("runtime", "?")}',
            f'precision {engine.description.get("precision", "?")}',
            f'network input {spec.width}x{spec.height}'
            + (f', {images} images a frame' if images > 1 else ''),
            f'normal: {" ".join(chosen_classes(self.manifest, settings))}',
        ]
        if self.frame_seconds:
            rate = 1 / self.frame_seconds
            words.append(f'the engine alone makes about {rate:.{0 if rate > 10 else 2}f} Hz')
        return ', '.join(words)

    def status(self) -> EngineStatus:
        """Return the state for diagnostics."""
        compiler, message, pipeline = self._compiler, self._message, self.pipeline
        settings, engine = pipeline.settings, pipeline.engine
        values = {
            'bundle': self.manifest.name,
            'bundle_path': str(self._bundle.root),
            'bundle_sha256': self._bundle.sha256,
            **engine.description,
            'compiled_classes': ', '.join(engine.compiled_classes),
            'in_distribution': ', '.join(chosen_classes(self.manifest, settings)),
            'false_alarm_rate': f'{settings.false_alarm_rate:g}',
        }
        if compiler is not None:
            requested = ', '.join(chosen_classes(self.manifest, self._requested))
            return EngineStatus('compiling', f'the head for {requested}', values)
        replaced = ''
        if _state_of(self._bundle) != self._found:
            replaced = f'bundle {self._bundle.root} was replaced or removed, the one that was '
            replaced = f'{replaced}loaded stays in use: {_CONFIGURE_AGAIN}'
        message = '; '.join(filter(None, (self._degraded, message, replaced, pipeline.doubt)))
        return EngineStatus('ready', message, values)

    def restart(self) -> None:
        """
        Serve from a new engine of the same options; the old one is released once it does not run.

        For a worker that was abandoned. Raises OodPerceptionError, the model is of no use then.
        """
        old = self.pipeline
        _release(old)
        bundle = self._unchanged()
        engine = self._create(bundle, self._options)
        with self._lock:
            self._bundle, self.pipeline = bundle, Pipeline(bundle, engine, old.settings)

    def close(self) -> None:
        """Release the engine; what hangs, or still compiles, releases its own when it is done."""
        with self._lock:
            self._closed, compiler = True, self._compiler
        if compiler is not None:
            compiler.join(_PATIENCE)
        _release(self.pipeline)

    def _unchanged(self) -> Bundle:
        """Return the bundle that was loaded, complete; BundleError where it is no more there."""
        bundle = complete(load_bundle(self._bundle.root), self._weights)
        if bundle.sha256 != self._bundle.sha256:
            raise BundleError(f'bundle {bundle.root} was replaced: {_CONFIGURE_AGAIN}')
        return bundle

    def _log_doubt(self, before: str) -> None:
        """Log what is to be said of the calibration of the classes, once."""
        if self.pipeline.doubt and self.pipeline.doubt != before:
            self._log('warning', self.pipeline.doubt)

    def _classes_to_compile(self, settings: Settings) -> tuple[str, ...]:
        """Return the classes that the engine has to be compiled for anew, () where it serves."""
        have = self.pipeline.engine.compiled_classes
        return classes_to_compile(self.manifest, self._options.head, settings, have)

    def _create(self, bundle: Bundle, options: EngineOptions) -> Engine:
        """Return an engine, the CPU's where the other fails and on_missing_engine allows it."""
        self._options = options
        try:
            return create_engine(bundle, options)
        except (EngineError, DependencyError) as error:
            runtime = options.runtime
            if not self._may_fall_back or runtime in ('auto', *CPU_ENGINES):
                raise
            # diagnostics warn as long as it is so
            self._degraded = f'degraded, the CPU engine runs instead of {runtime}: {error}'
            self._log('warning', self._degraded)
        return self._create(bundle, dataclasses.replace(options, runtime='auto', precision='auto'))

    def _compile(self) -> None:
        """Compile until the engine has the classes that are requested by then."""
        while True:
            with self._lock:
                classes = self._classes_to_compile(self._requested)
                if not classes:
                    self._compiler = None
                    return
            options = dataclasses.replace(self._options, compiled_classes=classes)
            try:
                engine = self._create(self._unchanged(), options)
            except Exception as error:  # the thread must not end with the state 'compiling'
                self._give_up(classes, error)
                return
            self._swap(engine, classes)
            if self._closed:
                return

    def _swap(self, engine: Engine, classes: Sequence[str]) -> None:
        with self._lock:
            if self._closed:
                engine.close()
                self._compiler = None
                return
            settings, old = self._requested, self.pipeline.engine
            if set(chosen_classes(self.manifest, settings)) - set(engine.compiled_classes):
                # Another request came meanwhile: serve what was compiled, the loop goes on.
                settings = dataclasses.replace(settings, in_distribution=tuple(classes))
            self.pipeline.update(settings=settings, engine=engine)
            self._log_doubt('')
        self.pipeline.close(old)
        self._log('info', f'the head is compiled for {", ".join(classes)}')

    def _give_up(self, classes: Sequence[str], error: Exception) -> None:
        in_use = chosen_classes(self.manifest, self.pipeline.settings)
        text = (
            f'the head for {", ".join(classes)} could not be compiled ({error}); '
            f'{", ".join(in_use)} stay in use'
        )
        with self._lock:
            self._message, self._compiler = text, None
        self._log('error', text)
