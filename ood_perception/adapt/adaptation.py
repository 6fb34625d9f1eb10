# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a drive's clean frames to an adapted bundle: seen once, levels measured, one taken."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ood_perception.adapt.blocks import FEWEST_BLOCKS, Rate, distinct_views, stretches
from ood_perception.adapt.curves import Cleaned, Normal, cleaned, served_sample
from ood_perception.adapt.drive import Drive
from ood_perception.adapt.gaussian import GaussianHead, Moments, gaussian_head
from ood_perception.adapt.levels import CURVES, Pasted, measured, paste, taken
from ood_perception.adapt.observe import Observer, SeenFrame, tokens_of
from ood_perception.adapt.writing import Changes, write_adapted
from ood_perception.bundle.store import Bundle
from ood_perception.demo.sources import spread
from ood_perception.engines import create_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.golden import read_golden
from ood_perception.errors import ConfigError, DataError, OodPerceptionError
from ood_perception.loader import Model
from ood_perception.postprocess.calibration import read_samples
from ood_perception.postprocess.image_statistics import MEASURES
from ood_perception.settings import chosen_classes
from ood_perception.texts import tell
from ood_perception.types import JsonDict

FEWEST_VIEWS = 20
LEAST_GROUND = 0.02
_WITHIN = 2.0
TOKENS, PASTED = 60, 16  # frames whose tokens are kept, and that get objects


@dataclass(frozen=True)
class AdaptOptions:
    """
    How to adapt.

    contamination: fraction of the predicted ground that is assumed to be no ground, see
    curves.cleaned. views: fewest distinct views; 1 for a few images of a new place. level: one of
    levels.LEVELS, or 'auto': by the objects pasted on left-out stretches.
    """

    contamination: float = 0.001
    views: int = FEWEST_VIEWS
    level: str = 'auto'

    def __post_init__(self) -> None:
        if not 0 <= self.contamination < 0.5:
            raise ConfigError(f'--contamination {self.contamination:g}: give a fraction, 0 to 0.5')


def adapt(model: Model, drive: Drive, path: Path, options: AdaptOptions) -> Bundle:
    """
    Adapt a model's bundle to a drive; write the bundle `path`, its calibration the drive's facts.

    What was seen lies in `<path>.frames` meanwhile: after a stop or a crash the same call goes on
    from there. Raises DataError for a drive that is too short, too monotonous or shows no ground,
    saying how much more is needed.
    """
    folder = kept_folder(path)
    try:
        adapted = _adapted(model, drive, path, options, folder)
    except OodPerceptionError:
        shutil.rmtree(folder, ignore_errors=True)  # no later run would end better
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return adapted


def kept_folder(path: Path) -> Path:
    """Return where what was seen lies until the bundle `path` is written."""
    return path.with_name(f'{path.name}.frames')


def of_all_classes(bundle: Bundle, options: EngineOptions) -> Engine:
    """Return an engine as an Observer needs it."""
    return create_engine(bundle, replace(options, compiled_classes=()))


def _adapted(
    model: Model, drive: Drive, path: Path, options: AdaptOptions, folder: Path
) -> Bundle:
    head = model.head
    observer, gaussian = observer_of(model, options.level, folder)
    with closing(observer):
        frames, pasted = seen_frames(observer, drive)
    views = distinct_views(frames)
    _check(frames, views, options.views)
    clean = cleaned(frames, options.contamination)
    normal = Normal.of(model)
    levels = measured(clean, pasted, stretches(len(frames)), normal, gaussian)
    level, found = taken(levels, options.level)
    parent = None if level.moments else read_samples(model.bundle).get(head.name)
    sample = served_sample(normal.as_left_out(level.clean.trimmed), normal.classes, parent)
    facts = {
        **_facts(model, drive, level.clean, views, level.rates),
        'level': level.name,
        'levels': found,
    }
    files, golden = {}, None
    if gaussian is not None and level.moments is not None:
        files = {gaussian.stage.file: gaussian.with_moments(level.moments)}
        golden = golden_of(model, gaussian, level.moments)
    changes = Changes(sample, facts, card(facts), files, golden)
    return write_adapted(model.bundle, head, path, changes)


def observer_of(model: Model, level: str, folder: Path) -> tuple[Observer, GaussianHead | None]:
    """
    Return who looks at frames for a level, and the Gaussian that it may change.

    folder: see Observer. Raises ConfigError for a level that the head has not.
    """
    gaussian = gaussian_head(model.bundle, model.head)
    if level not in ('auto', CURVES) and gaussian is None:
        raise ConfigError(
            f'--level {level}: head {model.head.name} is no single Gaussian; use {CURVES}'
        )
    gaussian = None if level == CURVES else gaussian
    return Observer(model, gaussian.layers if gaussian else (), folder), gaussian


def seen_frames(
    observer: Observer,
    drive: Drive,
    tokens: int = TOKENS,
    objects: int = PASTED,
    first: int = 0,
    total: int = 0,
) -> tuple[list[SeenFrame], list[Pasted]]:
    """
    Return what the frames show, and some of them with objects pasted on.

    tokens, objects: of so many frames, evenly spread, the tokens are kept, so many get objects.
    first, total: of a drive that is a part of a longer one: its first frame's number in that, and
    the frames of all of it. The observer stays open.
    """
    frames: list[SeenFrame] = []
    pasted: list[Pasted] = []
    total = total or drive.count
    with_tokens, with_objects = spread(total, tokens), spread(total, objects)
    # disable=None: shown on a terminal alone
    bar = tqdm(drive.frames(), total=drive.count, unit='frame', leave=False, disable=None)
    for number, frame in enumerate(bar, first):
        seen = observer.see(frame, tokens=number in with_tokens)
        frames.append(seen)
        one = paste(observer, frame, seen, number - first) if number in with_objects else None
        pasted += [one] if one else []
    if observer.kept.reused:
        tell(f'{observer.kept.reused} images had been seen by the run that was stopped')
    return frames, pasted


def golden_of(model: Model, head: GaussianHead, moments: Moments) -> dict[str, npt.NDArray[Any]]:
    """
    Return the golden vectors of a head with other moments, computed by numpy.

    The tokens are those of an engine in float32 that kept the parent's vectors.
    """
    golden = read_golden(model.bundle, model.head)
    options = replace(model.engine.options, precision='f32', compiled_classes=())
    with create_engine(model.bundle, options) as engine:
        tokens = tokens_of(engine, golden.image, head.layers)
        chosen = engine.class_vector(golden.classes)
    return {
        'image': golden.image,
        'in_distribution': chosen,
        'surprisal': head.surprisal(tokens, moments),
        'labels': golden.labels,
    }


def _check(frames: list[SeenFrame], views: int, fewest: int) -> None:
    if views < fewest:
        raise DataError(
            f'{len(frames)} frames show {views} different views, at least {fewest} are needed: '
            + (
                f'record {fewest - views} more places; a standing vehicle shows one'
                if len(frames) >= fewest
                else f'take {fewest - len(frames)} frames more'
            )
            + '; for a few images of a new place use --normal'
        )
    ground = float(np.median([frame.ground for frame in frames]))
    if ground < LEAST_GROUND:
        raise DataError(
            f'the normal classes cover {ground:.1%} of a frame, at least {LEAST_GROUND:.0%} is '
            "needed: check the camera, roi.* in --params and the bundle's in_distribution"
        )


def _facts(model: Model, drive: Drive, clean: Cleaned, views: int, rates: list[Rate]) -> JsonDict:
    frames = clean.frames
    stamps = [frame.stamp_ns for frame in frames if frame.stamp_ns]
    looks = {name: [getattr(frame.look, name) for frame in frames] for name in MEASURES}
    pixels = np.bincount(np.concatenate([frame.truth for frame in clean.trimmed]))
    compiled = model.head.compiled_classes
    return {
        'adapted_to': drive.description,
        'frames': len(frames),
        'distinct_views': views,
        'minutes': round((max(stamps) - min(stamps)) / 6e10, 2) if stamps else None,
        'first_and_last': [frames[0].name, frames[-1].name],
        'pixels': {compiled[k]: int(n) for k, n in enumerate(pixels) if n},
        'trimmed': float(f'{clean.share:.4g}'),
        'at_fixed_places': float(f'{clean.fixed:.4g}'),
        'in_distribution': list(chosen_classes(model.bundle.manifest, model.pipeline.settings)),
        'precision': model.engine.description.get('precision', ''),
        'rates': [rate.to_json() for rate in rates if len(frames) >= FEWEST_BLOCKS],
        'images': {
            name: [round(float(q), 2) for q in np.quantile(values, [0.01, 0.5, 0.99])]
            for name, values in looks.items()
        },
        'ground': round(float(np.median([frame.ground for frame in frames])), 4),
    }


def _level_lines(facts: JsonDict) -> list[str]:
    """Return which level was taken, and what each finds of the pasted objects."""
    lines = [f'level: {facts["level"]}']
    for name, one in facts['levels'].items():
        if one['objects_average_precision'] is not None:
            gain = one.get('gain')
            against = f', {gain[0]:+.1f} to {gain[1]:+.1f} against curves (95 %)' if gain else ''
            rate = one['rates'][0]
            lines.append(
                f'{name}: AP {one["objects_average_precision"]:.1f} on objects pasted on '
                f'left-out frames{against}; {rate["target"]:.0%} gives {rate["observed"]:.2%}'
            )
    return lines


def rate_line(rate: JsonDict) -> str:
    """Return a target rate and what it gave, as a sentence."""
    return (
        f'{rate["target"]:.0%} gives {rate["observed"]:.2%} [{rate["low"]:.2%}, '
        f'{rate["high"]:.2%}] on stretches left out (95 %, {rate["blocks"]} blocks of '
        f'{rate["block"]} frames, worth {rate["effective"]} independent pixels); the parent flags '
        f'{rate["before"]:.2%}'
    )


def advice(rates: list[JsonDict], frames: int) -> str:
    """Return what is to be said of the strictest rate's interval, '' where it is narrow enough."""
    if not rates:
        return (
            f'{frames} images are too few to state a rate: the scores rank; take {FEWEST_BLOCKS} '
            'or more, of different places'
        )
    rate = rates[0]
    target, low, high = rate['target'], rate['low'], rate['high']
    if target / _WITHIN <= low and high <= target * _WITHIN:
        return ''
    half = max(high - low, 1e-9) / 2
    needed = math.ceil(frames * (half / (target * (_WITHIN - 1) / _WITHIN)) ** 2)
    more = f': about {needed} frames as different as these would' if needed > frames else ''
    return f'the interval at {target:.0%} is not within a factor of two of the target{more}'


def card(facts: JsonDict) -> str:
    """Return what the model card says of the adaptation, as Markdown."""
    minutes = f', {facts["minutes"]} minutes' if facts['minutes'] else ''
    lines = [
        f'To {facts["adapted_to"]}: {facts["frames"]} frames ({facts["distinct_views"]} different '
        f'views{minutes}), {facts["first_and_last"][0]} to {facts["first_and_last"][1]}.',
        '',
        *(f'* {line}.' for line in _level_lines(facts)),
        f'* {facts["trimmed"]:.2%} of the predicted ground, the highest scores, were cut: where '
        'the drive holds nothing unknown, that much more than the target may be flagged.',
        *(f'* {rate_line(rate)}.' for rate in facts['rates']),
    ]
    if facts['at_fixed_places']:
        lines.append(
            f'* {facts["at_fixed_places"]:.2%} of the predicted ground scores high in most frames '
            'at the same place, most likely the own vehicle: left out; draw roi.ignore_polygons.'
        )
    if doubt := advice(facts['rates'], facts['frames']):
        lines.append(f'* {doubt[0].upper()}{doubt[1:]}.')
    return '\n'.join(lines)
