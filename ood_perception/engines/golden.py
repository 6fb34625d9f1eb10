# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An engine is used only after it reproduced the bundle's golden vectors on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.archives import read_arrays
from ood_perception.bundle.manifest import GoldenSpec, HeadSpec, Manifest
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.errors import BundleError, EngineError
from ood_perception.types import EngineOutput, Float32Array, UInt8Array

DISTINCT_SHARE = 0.95
REDUCED_QUANTILE = 0.999
MOST_IMAGES = 16
MIN_ABOVE = 100  # fewer values above the bound say nothing of ties among them


@dataclass(frozen=True)
class GoldenReport:
    """
    How far an engine is from the golden vectors.

    surprisal_difference: largest |difference| up to GoldenSpec.surprisal_bound, or its 99.9 %
        quantile in reduced precision; golden values above the bound may only not fall below it.
    score_difference: largest |difference| of the score.
    inversion: by how much a value falls below one that should be less, where the golden ones are
        above the bound, as a share of the value.
    rank_correlation: Spearman's, of all surprisal values.
    distinct_share: distinct surprisal values, as a share of the golden's; the worse of all values
        and those above the bound (where there are at least 100).
    label_agreement: share of equal labels.
    """

    surprisal_difference: float
    score_difference: float
    inversion: float
    rank_correlation: float
    distinct_share: float
    label_agreement: float

    def to_json(self) -> dict[str, float]:
        """Return plain numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class GoldenVectors:
    """image uint8 (N, h, w, 3), classes counted as normal, surprisal and labels (N, gh, gw)."""

    image: UInt8Array
    classes: tuple[str, ...]
    surprisal: Float32Array
    labels: UInt8Array


def read_golden(bundle: Bundle, head: HeadSpec) -> GoldenVectors:
    """Read the golden vectors of a head; BundleError when they cannot be read."""
    path = bundle.path(bundle.manifest.golden.file)
    try:
        golden = read_arrays(path)
        vector = golden['in_distribution']
        arrays = [golden[name] for name in ('image', 'surprisal', 'labels')]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f'{path} cannot be read ({error}): copy the bundle again') from error
    _check_shapes(arrays, bundle.manifest, path)
    fits = vector.dtype.kind in 'biuf' and vector.shape == (len(head.compiled_classes),)
    if not (fits and np.isin(vector, (0, 1)).all()):
        raise BundleError(
            f'{path}: in_distribution is {str(vector)[:100]} of shape {vector.shape}, expected 0 '
            f'or 1 for {len(head.compiled_classes)} classes of head {head.name}; pack it again'
        )
    pairs = zip(head.compiled_classes, vector, strict=True)
    return GoldenVectors(arrays[0], tuple(name for name, on in pairs if on), *arrays[1:])


def _check_shapes(arrays: list[Any], manifest: Manifest, path: Path) -> None:
    """Refuse arrays that are no images of the network's size with a score and a label a cell."""
    image, surprisal, labels = arrays
    size = (manifest.input.height, manifest.input.width, 3)
    fits = image.dtype == labels.dtype == np.uint8 and surprisal.dtype == np.float32
    fits = fits and image.shape == (len(image), *size) and surprisal.ndim == 3
    if not (fits and 0 < len(image) == len(surprisal) <= MOST_IMAGES):
        raise BundleError(
            f'{path}: image {image.dtype} {image.shape}, surprisal {surprisal.dtype} '
            f'{surprisal.shape}: expected up to {MOST_IMAGES} images of {size}; pack it again'
        )
    if labels.shape != surprisal.shape or not np.isfinite(surprisal).all():
        raise BundleError(f'{path}: labels {labels.shape} or surprisal are damaged; pack it again')


def vectors_by(engine: Engine, image: UInt8Array, classes: tuple[str, ...]) -> GoldenVectors:
    """Return the vectors that a trusted engine gives for other classes."""
    output = _run_singly(engine, image, classes)
    return GoldenVectors(image, classes, output.surprisal, output.labels)


def _run_singly(engine: Engine, image: UInt8Array, classes: tuple[str, ...]) -> EngineOutput:
    """Run image by image: engines may compile per batch size, and one camera is the rule."""
    vector = engine.class_vector(classes)
    outputs = [engine.run(image[i : i + 1], vector) for i in range(len(image))]
    surprisal = np.concatenate([output.surprisal for output in outputs])
    labels = np.concatenate([output.labels for output in outputs])
    return EngineOutput(surprisal, labels, outputs[-1].stage_ms)


def check_golden(engine: Engine, bundle: Bundle, golden: GoldenVectors) -> GoldenReport:
    """Run the golden inputs; return the differences. EngineError says what is out of bounds."""
    output = _run_singly(engine, golden.image, golden.classes)
    precision = engine.description['precision']
    reduced, spec = precision != 'f32', bounds_of(bundle.manifest, engine.measured_as)
    if output.surprisal.shape != golden.surprisal.shape:
        raise _refusal(engine, 'shape of surprisal', str(output.surprisal.shape), '')
    if not np.isfinite(output.surprisal).all():
        raise _refusal(engine, 'share of finite surprisal', 'below 1', 'at least 1')
    report = compare(
        output.surprisal, output.labels, golden.surprisal, golden.labels, spec, reduced
    )
    _judge(engine, report, spec, reduced)
    return report


def compare(
    surprisal: Float32Array,
    labels: UInt8Array,
    golden_surprisal: Float32Array,
    golden_labels: UInt8Array,
    spec: GoldenSpec,
    reduced: bool,
) -> GoldenReport:
    """Compare two outputs of one shape; see GoldenReport."""
    bound = spec.surprisal_bound
    above = golden_surprisal > bound
    difference = np.where(
        above, np.maximum(bound - surprisal, 0), np.abs(surprisal - golden_surprisal)
    )
    score = np.abs(np.power(10.0, -surprisal) - np.power(10.0, -golden_surprisal))
    distinct = _distinct_share(surprisal, golden_surprisal)
    if int(above.sum()) >= MIN_ABOVE:
        distinct = min(distinct, _distinct_share(surprisal[above], golden_surprisal[above]))
    return GoldenReport(
        surprisal_difference=float(np.quantile(difference, REDUCED_QUANTILE if reduced else 1.0)),
        score_difference=float(score.max()),
        inversion=_inversion(surprisal[above], golden_surprisal[above]),
        rank_correlation=_rank_correlation(surprisal, golden_surprisal),
        distinct_share=distinct,
        label_agreement=float((labels == golden_labels).mean()),
    )


def bounds_of(manifest: Manifest, precision: str) -> GoldenSpec:
    """Return the golden bounds in a precision: its own where they were measured."""
    measured = manifest.precisions.get(precision)
    if measured is None:
        return manifest.golden
    return replace(
        manifest.golden,
        reduced_precision_surprisal_tolerance=measured.surprisal_tolerance,
        label_agreement=measured.label_agreement,
    )


def _distinct_share(values: Float32Array, golden: Float32Array) -> float:
    return float(np.unique(values).size / np.unique(golden).size)


def _inversion(values: Float32Array, golden: Float32Array) -> float:
    """Return the largest relative drop of `values` (N,) when sorted by `golden` (N,)."""
    ordered = values[np.argsort(golden, kind='stable')]
    if not ordered.size:
        return 0.0
    highest = np.maximum.accumulate(ordered)
    return float(np.max((highest - ordered) / np.maximum(highest, np.float32(1e-6))))


def _rank_correlation(a: Float32Array, b: Float32Array) -> float:
    """Return Spearman's rank correlation; ties in order of appearance, fine for near-equals."""
    ranks = [np.argsort(np.argsort(x.ravel(), kind='stable'), kind='stable') for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _judge(engine: Engine, report: GoldenReport, spec: GoldenSpec, reduced: bool) -> None:
    """Raise EngineError for the first measure out of bounds."""
    tolerance = spec.reduced_precision_surprisal_tolerance if reduced else spec.surprisal_tolerance
    measures = [
        ('|difference| of surprisal', report.surprisal_difference, tolerance, False),
        ('rank correlation of surprisal', report.rank_correlation, 0.99, True),
        ('share of distinct surprisal values', report.distinct_share, DISTINCT_SHARE, True),
        ('share of equal labels', report.label_agreement, spec.label_agreement, True),
    ]
    if not reduced:
        order = spec.surprisal_tolerance / spec.surprisal_bound
        measures += [
            ('|difference| of score', report.score_difference, spec.score_tolerance, False),
            ('drop in the order of large surprisal', report.inversion, order, False),
        ]
    for name, value, bound, at_least in measures:
        if value < bound if at_least else not value <= bound:
            limit = f'at {"least" if at_least else "most"} {bound:g}'
            raise _refusal(engine, name, f'{value:.6g}', limit)


def _refusal(engine: Engine, name: str, value: str, limit: str) -> EngineError:
    facts = ' '.join(engine.description.values())
    return EngineError(
        f'engine {facts} misses the golden vectors of bundle {engine.manifest.name}: {name} is '
        f'{value}, {limit or "not what was packed"}; it is not used. Try precision f32 or another '
        'engine, and report the versions'
    )
