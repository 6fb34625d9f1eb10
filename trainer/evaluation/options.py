# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, each with its one default, and what they stand for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import ENGINES
from ood_perception.engines.base import EngineOptions
from ood_perception.evaluation.maritime import SeaClasses
from ood_perception.loader import open_pipeline
from ood_perception.pipeline import Pipeline, Settings

from ..progress import show_progress

Group = argparse._ActionsContainer


def command_parser(description: str | None, **more: Any) -> argparse.ArgumentParser:
    """Return a parser whose help shows a module's docstring as it stands."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw, **more)


def add_training_arguments(group: Group) -> None:
    """Add --cache, --threads and --quiet of the commands that train."""
    group.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    group.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    group.add_argument('--quiet', action='store_true', help='no progress bars')


def apply_training_arguments(options: argparse.Namespace) -> None:
    """Do what --threads and --quiet ask for, in the whole process."""
    import torch

    show_progress(not options.quiet)
    if options.threads:
        torch.set_num_threads(options.threads)


def add_root_argument(group: Group) -> None:
    """Add --root, see sets_root."""
    group.add_argument('--root', type=Path, help='folder of the sets; default: OOD_DATA')


def sets_root(options: argparse.Namespace | None = None) -> Path:
    """Return the folder of all sets: --root, else OOD_DATA, else the working directory."""
    return (options.root if options else None) or Path(os.environ.get('OOD_DATA', '.'))


def add_bundle_arguments(group: Group, rate: str) -> None:
    """Add what a bundle is run with: engine, mask, classes of seas; rate: what its rate is of."""
    add = group.add_argument
    add('--engine', default='auto', choices=('auto', *ENGINES))
    add('--precision', default='auto', help='auto, f32, bf16, int8')
    add('--threads', type=int, default=0, help='0: all cores')
    add('--weights', default='', help="origin of the backbone's weights")
    add('--in-distribution', nargs='+', default=[], help="default: the bundle's")
    add('--false-alarm-rate', type=float, default=0.01, help=rate)
    views = {'action': argparse.BooleanOptionalAction, 'default': True}
    add('--views', help="also see the bundle's further views", **views)
    water, sky = list(SeaClasses.water), list(SeaClasses.sky)
    add('--water', nargs='+', default=water, help="the bundle's classes of water, for seas")
    add('--sky', nargs='+', default=sky, help="the bundle's classes of sky, for seas")


def engine_options(options: argparse.Namespace) -> EngineOptions:
    """Return which engine was asked for, for the frames of one run."""
    asked = EngineOptions(options.engine, options.precision, options.threads)
    return replace(asked, max_batch=max(1, getattr(options, 'batch', 1)))


def sea_classes(options: argparse.Namespace) -> SeaClasses:
    """Return which classes are water and sky."""
    return SeaClasses(tuple(options.water), tuple(options.sky))


@contextmanager
def opened(
    place: str, settings: Settings, engine: EngineOptions, weights: str = ''
) -> Iterator[tuple[Bundle, Pipeline]]:
    """
    Load and complete a bundle ('' = the shipped one), and close its engine at the end.

    engine: compiled for the settings' classes and max_batch frames, each of all views. weights:
    origin, '' = as the bundle says.
    """
    bundle = complete(load_bundle(place or default_bundle_path()), weights or None)
    images = engine.max_batch * bundle.manifest.input.images
    compiled = replace(engine, compiled_classes=settings.in_distribution, max_batch=images)
    pipeline = open_pipeline(bundle, compiled, settings)
    with pipeline.engine:
        yield bundle, pipeline


def metadata_of(bundle: Bundle, pipeline: Pipeline) -> dict[str, Any]:
    """Return what a run's detections depend on but the images, as JSON values."""
    return {
        'bundle': bundle.manifest.name,
        'bundle_sha256': bundle.sha256,
        'engine': dict(pipeline.engine.description),
        'settings': _plain(asdict(pipeline.settings)),
    }


def _plain(values: Any) -> Any:
    """Return settings as values that JSON knows."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return values if isinstance(values, (str, int, float, bool, type(None))) else str(values)
