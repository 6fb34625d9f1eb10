# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a drive's clean frames to an adapted bundle: seen once, levels measured, one taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ood_perception.adapt.blocks import Rate, distinct_views, stretches
from ood_perception.adapt.curves import Cleaned, cleaned, left_out_rates, served_sample
from ood_perception.adapt.drive import Drive
from ood_perception.adapt.observe import Observer, SeenFrame
from ood_perception.adapt.writing import Changes, write_adapted
from ood_perception.bundle.store import Bundle
from ood_perception.errors import ConfigError, DataError
from ood_perception.loader import Model
from ood_perception.postprocess.calibration import read_samples
from ood_perception.postprocess.image_statistics import MEASURES
from ood_perception.settings import chosen_classes
from ood_perception.types import JsonDict

FEWEST_VIEWS = 20
LEAST_GROUND = 0.02
_WITHIN = 2.0


@dataclass(frozen=True)
class AdaptOptions:
    """
    How to adapt.

    contamination: fraction of the predicted ground that is assumed to be no ground, see
    curves.cleaned. views: fewest distinct views; 1 for a few images of a new place.
    """

    contamination: float = 0.001
    views: int = FEWEST_VIEWS

    def __post_init__(self) -> None:
        if not 0 <= self.contamination < 0.5:
            raise ConfigError(f'--contamination {self.contamination:g}: give a fraction, 0 to 0.5')


@dataclass(frozen=True)
class Adapted:
    """The written bundle, what it flags of stretches that it was not fitted on, and the facts."""

    bundle: Bundle
    rates: list[Rate]
    facts: JsonDict


def adapt(model: Model, drive: Drive, path: Path, options: AdaptOptions) -> Adapted:
    """
    Adapt a model's bundle to a drive and write the bundle `path`.

    Raises DataError for a drive that is too short, too monotonous or shows no ground, saying how
    much more is needed.
    """
    observer = Observer(model)
    try:
        frames = list(_seen(observer, drive))
    finally:
        observer.close()
    views = distinct_views(frames)
    _check(frames, views, options.views)
    clean = cleaned(frames, options.contamination)
    classes = observer.head.compiled_classes
    chosen = chosen_classes(model.bundle.manifest, model.pipeline.settings)
    parts = stretches(len(frames))
    rates = left_out_rates(clean.trimmed, clean.frames, parts, classes, chosen)
    parent = read_samples(model.bundle).get(observer.head.name)
    sample = served_sample(clean.trimmed, classes, parent)
    facts = _facts(model, drive, clean, views, rates)
    changes = Changes(sample, facts, card(facts), {})
    return Adapted(write_adapted(model.bundle, observer.head, path, changes), rates, facts)


def _seen(observer: Observer, drive: Drive) -> Iterator[SeenFrame]:
    # disable=None: shown on a terminal alone
    for frame in tqdm(drive.frames(), total=drive.count, unit='frame', leave=False, disable=None):
        yield observer.see(frame)


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
    compiled = model.bundle.manifest.heads[0].compiled_classes
    return {
        'adapted_to': drive.description,
        'level': 'curves',
        'frames': len(frames),
        'distinct_views': views,
        'minutes': round((max(stamps) - min(stamps)) / 6e10, 2) if stamps else None,
        'first_and_last': [frames[0].name, frames[-1].name],
        'pixels': {compiled[k]: int(n) for k, n in enumerate(pixels) if n},
        'trimmed': float(f'{clean.share:.4g}'),
        'at_fixed_places': float(f'{clean.fixed:.4g}'),
        'in_distribution': list(chosen_classes(model.bundle.manifest, model.pipeline.settings)),
        'precision': model.engine.description.get('precision', ''),
        'rates': [rate.to_json() for rate in rates],
        'images': {
            name: [round(float(q), 2) for q in np.quantile(values, [0.01, 0.5, 0.99])]
            for name, values in looks.items()
        },
        'ground': round(float(np.median([frame.ground for frame in frames])), 4),
    }


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
        f'* Level: {facts["level"]}.',
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
