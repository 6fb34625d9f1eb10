# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The last step of the score: one table for the classes that count as normal *now*.

A head is calibrated class by class. The least surprisal over several classes flags less than
targeted, since a pixel must be rejected by all of them, and one score for all classes states
nothing for some of them. A bundle therefore carries a small weighted sample of held-out pixels,
from which the table of any set of classes is fitted when the set is chosen. Where a set has few
held-out pixels, its table counts them at the upper end of their 95 % interval, and rates below
what so few can bound are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.archives import read_arrays
from ood_perception.errors import BundleError, ConfigError
from ood_perception.types import Float32Array, Float64Array, UInt8Array

if TYPE_CHECKING:
    from ood_perception.bundle.store import Bundle

KNOTS = 256
FEWEST_PIXELS = 1000
_SHALLOWEST = 0.999
_TAIL = 0.01
_LEAST_RISE = 1e-5
_MOST_WEIGHT = 1e12  # held-out pixels that one stands for
# Normal deviate of 95 %, and a little more: so the approximation of `_upper` is never below exact
_Z95 = 1.66


@dataclass(frozen=True)
class ClassSetCalibration:
    """
    The map from a head's surprisal to the surprisal of a set of classes.

    x, y: float64 (M,), both strictly increasing from 0; linear between knots.
    slope: d y / d x beyond the last knot, > 0: values there rank, they state no rate.
    Raises ConfigError for another table: it would turn scores into NaN, or all into one.
    """

    x: Float64Array
    y: Float64Array
    slope: float

    def __post_init__(self) -> None:
        rises = [np.diff(self.x), np.diff(self.y), np.array([self.slope])]
        finite = all(np.isfinite(part).all() for part in (self.x, self.y, *rises))
        if not finite or any((part <= 0).any() for part in rises) or self.x[0] or self.y[0]:
            raise ConfigError(
                f'the calibration of the classes does not rise from 0 (knots {self.x[:3]} ... to '
                f'{self.y[:3]} ..., slope {self.slope:g}): pack the bundle again'
            )

    def __call__(self, surprisal: Float32Array) -> Float32Array:
        """Return float32 >= 0 of the same shape; strictly increasing, so ranks stay."""
        flat = surprisal.ravel()
        mapped = np.interp(flat, self.x, self.y) + self.slope * np.maximum(flat - self.x[-1], 0.0)
        return np.asarray(mapped.reshape(surprisal.shape), dtype=np.float32)


@dataclass(frozen=True)
class HeldOutSample:
    """
    Held-out pixels of a head, drawn so that the rare anomalous ones are all kept.

    classes: names of the classes that a pixel can truly be of.
    surprisal: float (N, S) >= 0: of each of `classes` in their order, or S = 1, the one score.
        Float (N, V, S) of a bundle that sees several views: of the whole image, then of every
        further view, -inf where it does not hold the pixel. Between the cells of a view each class
        is interpolated by itself, whose least is at least what is served.
    truth: uint8 (N,), the pixel's class as its place in `classes`.
    weight: float (N,) > 0: how many held-out pixels each stands for.
    """

    classes: tuple[str, ...]
    surprisal: npt.NDArray[np.floating[Any]]
    truth: UInt8Array
    weight: npt.NDArray[np.floating[Any]]

    @property
    def views(self) -> int:
        """How many views of a pixel it tells apart."""
        return self.surprisal.shape[1] if self.surprisal.ndim == 3 else 1

    def of_whole_image(self) -> HeldOutSample:
        """Return the same pixels as the whole image alone shows them."""
        return replace(self, surprisal=self.surprisal[:, 0]) if self.views > 1 else self

    def pixels(self, chosen: Sequence[str]) -> int:
        """Return how many held-out pixels are of the chosen classes."""
        return round(float(self.weight[np.isin(self.truth, self._places(chosen))].sum()))

    def curve(self, chosen: Sequence[str]) -> tuple[Float64Array, Float64Array]:
        """
        Return (x ascending and distinct, e(x)) of the pixels whose class is chosen.

        x is the least surprisal over the chosen classes, or the one score, in the view where it
        is greatest, which is what is served;
        e(x) = (1 + held-out pixels with at least x) / (1 + all of them), in (0, 1].
        """
        x, above = self._counted(chosen)
        return x, (1 + above) / (1 + above[:1].sum())

    def served(self, chosen: Sequence[str]) -> npt.NDArray[np.floating[Any]]:
        """Return (N,): the least over the chosen classes, greatest over the views."""
        places = self._places(chosen)
        columns = places if self.surprisal.shape[-1] > 1 else [0]
        shape = (len(self.surprisal), self.views, self.surprisal.shape[-1])
        seen = self.surprisal.reshape(shape)[..., columns]
        return np.asarray(seen.min(axis=2).max(axis=1))

    def _counted(self, chosen: Sequence[str]) -> tuple[Float64Array, Float64Array]:
        """Return the distinct x, ascending, and how many held-out pixels have at least each."""
        mine = np.isin(self.truth, self._places(chosen))
        least = self.served(chosen)[mine].astype(np.float64)
        order = np.argsort(least, kind='stable')
        x, weight = least[order], self.weight[mine][order].astype(np.float64)
        above = np.cumsum(weight[::-1])[::-1]
        first = np.concatenate([[True], np.diff(x) > 0])[: len(x)]
        return x[first], above[first]

    def calibration(self, chosen: Sequence[str]) -> ClassSetCalibration:
        """
        Return the table of a set of classes.

        It is counted down to e = 10 / n and goes on log-linearly from there with the slope of
        the highest-scoring 1 %. Below 1000 pixels every count stands at the upper end of its 95 %
        interval: such a table flags less than it was asked for, rather than more. Raises
        ConfigError for an unknown class and for a set without a held-out pixel.
        """
        count = self.pixels(chosen)
        if count < FEWEST_PIXELS:
            x, above = self._counted(chosen)
            if not len(x):
                raise ConfigError(_too_few(chosen, 0, 'calibrate nothing'))
            e = np.minimum(_upper(above) / above[0], 1.0)
            return _through(x, -np.log10(e), 100 / above[0])
        x, e = self.curve(chosen)
        levels = -np.log10(np.geomspace(_SHALLOWEST, 10 / count, KNOTS))
        surprisal = -np.log10(e)
        keep = np.concatenate([[True], np.diff(surprisal) > 0])
        places = np.interp(levels, surprisal[keep], x[keep])
        return _through(places, levels, _TAIL)

    def least_rate(self, chosen: Sequence[str]) -> float:
        """
        Return the least false-alarm rate that the set's pixels bound: 3 / n for few, else 0.

        With none of n pixels above a threshold, the rate there is below 3 / n with 95 %
        confidence. 1 for a set without pixels.
        """
        count = self.pixels(chosen)
        if count >= FEWEST_PIXELS:
            return 0.0
        return min(1.0, float(_upper(np.zeros(1))[0]) / count) if count else 1.0

    def doubt(self, chosen: Sequence[str], rate: float) -> str:
        """
        Return what is to be said of a set of classes at a false-alarm rate, '' = nothing.

        Raises ConfigError for a rate that its held-out pixels cannot bound.
        """
        count, least = self.pixels(chosen), self.least_rate(chosen)
        if rate < least:
            needed = math.ceil(float(_upper(np.zeros(1))[0]) / rate)
            what = f'cannot bound a false alarm rate of {rate:g}, which takes {needed}'
            raise ConfigError(_too_few(chosen, count, what, least))
        if count >= FEWEST_PIXELS:
            return ''
        return (
            f'{", ".join(chosen)}: calibrated on {count} held-out pixels, fewer than '
            f'{FEWEST_PIXELS}; their counts are taken at the upper end of the 95 % interval, so '
            f'less than {rate:g} is flagged and anomalies may be missed'
        )

    def _places(self, chosen: Sequence[str]) -> list[int]:
        unknown = [name for name in chosen if name not in self.classes]
        if unknown or not chosen:
            raise ConfigError(
                f'classes {list(chosen)}: {", ".join(unknown) or "an empty set"} was not '
                f'calibrated; choose among {", ".join(self.classes)}'
            )
        return [self.classes.index(name) for name in chosen]


def _upper(counts: Float64Array) -> Float64Array:
    """
    Return the upper 95 % confidence limit of the mean of Poisson counts, >= 0.

    Wilson and Hilferty's approximation of the quantile of chi-squared; a binomial's is lower.
    """
    next_count = np.asarray(counts, dtype=np.float64) + 1
    root = 1 - 1 / (9 * next_count) + _Z95 / (3 * np.sqrt(next_count))
    return np.asarray(next_count * root**3, dtype=np.float64)


def _too_few(chosen: Sequence[str], count: int, what: str, least: float = 1.0) -> str:
    rate = f'set false_alarm_rate to {math.ceil(1e4 * least) / 1e4:g} or more, or ' * (least < 1)
    return (
        f'in_distribution {", ".join(chosen)}: {count} held-out pixels {what}; {rate}choose more '
        'classes, or a bundle that was calibrated on more images of these'
    )


def _through(x: Float64Array, y: Float64Array, tail: float) -> ClassSetCalibration:
    """
    Return the table through (0, 0) and the points, flat stretches of x thinned out.

    Beyond the points it has the slope between e = tail and the last of them; 1, the head's own,
    where there is none.
    """
    kept_x, kept_y = [0.0], [0.0]
    for place, level in zip(x, y, strict=True):
        if place > kept_x[-1] + _LEAST_RISE and level > kept_y[-1] + _LEAST_RISE:
            kept_x.append(float(place))
            kept_y.append(float(level))
    knots_x, knots_y = np.array(kept_x), np.array(kept_y)
    if len(knots_x) == 1:
        return ClassSetCalibration(knots_x, knots_y, 1.0)
    bend = min(int(np.searchsorted(knots_y, -np.log10(tail))), len(knots_y) - 2)
    slope = (knots_y[-1] - knots_y[bend]) / (knots_x[-1] - knots_x[bend])
    return ClassSetCalibration(knots_x, knots_y, float(slope))


def read_samples(bundle: Bundle) -> dict[str, HeldOutSample]:
    """Return the held-out sample of every head that has one; BundleError when it is damaged."""
    samples: dict[str, HeldOutSample] = {}
    for head in bundle.manifest.heads:
        if head.set_calibration:
            path = bundle.path(head.set_calibration)
            try:
                sample = sample_of(read_arrays(path))
                # one view stands for the merged score: bundles of earlier versions
                if sample.views not in (1, bundle.manifest.input.images):
                    raise ValueError(
                        f'it holds {sample.views} views, the manifest '
                        f'{bundle.manifest.input.images}'
                    )
                samples[head.name] = sample
            except (OSError, ValueError, KeyError) as error:
                raise BundleError(
                    f'{path} cannot be read ({error}): copy the bundle again'
                ) from error
    return samples


def arrays_of(sample: HeldOutSample) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a sample's file: names as text, surprisal float16, weight float32."""
    return {
        'classes': np.array(sample.classes),
        'surprisal': sample.surprisal.astype(np.float16),
        'truth': sample.truth.astype(np.uint8),
        'weight': sample.weight.astype(np.float32),
    }


def sample_of(arrays: Mapping[str, npt.NDArray[Any]]) -> HeldOutSample:
    """
    Return the sample of what arrays_of gave.

    Raises ValueError where shapes do not fit, and for what calibrates nothing: no pixel, scores
    or weights that are not finite, scores below 0 or all the same, weights of 0 or less or of
    more pixels than there are.
    """
    surprisal, truth, weight = (np.asarray(arrays[k]) for k in ('surprisal', 'truth', 'weight'))
    classes = _names(np.asarray(arrays['classes']))
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f'its classes are {str(classes)[:200]}, expected names, each once')
    fits = surprisal.ndim in (2, 3) and surprisal.shape[-1] in (1, len(classes))
    fits = fits and all(surprisal.shape) and truth.ndim == weight.ndim == 1
    fits = fits and len(surprisal) == len(truth) == len(weight) and truth.dtype.kind in 'iu'
    fits = fits and {surprisal.dtype.kind, weight.dtype.kind} <= set('fiu')
    if not fits or (truth >= len(classes)).any() or (truth < 0).any():
        raise ValueError(
            f'surprisal {surprisal.shape}, truth {truth.shape} and weight {weight.shape} of '
            f'{len(classes)} classes do not fit together'
        )
    _check_numbers(surprisal.reshape(len(truth), -1, surprisal.shape[-1]), weight)
    return HeldOutSample(classes, surprisal.astype(np.float32), truth, weight)


def _names(array: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the texts of an array (N,), () for any other array."""
    if array.ndim != 1 or array.dtype.kind != 'U':
        return ()
    try:
        return tuple(array.tolist())
    except (SystemError, ValueError):  # numbers that no character has, by the version of Python
        return ()


def _check_numbers(surprisal: npt.NDArray[Any], weight: npt.NDArray[Any]) -> None:
    """Raise ValueError for a degenerate sample; surprisal (N, V, S), -inf = not in that view."""
    whole, seen = surprisal[:, 0], surprisal[~np.isneginf(surprisal)]
    if np.isneginf(whole).any() or not np.isfinite(seen).all() or (seen < 0).any():
        raise ValueError('it holds surprisal that is not finite and 0 or more')
    if len(whole) > 1 and (whole == whole[0]).all(axis=0).any():
        raise ValueError('a score in it is the same for all pixels')
    if not (np.isfinite(weight) & (weight > 0) & (weight <= _MOST_WEIGHT)).all():
        raise ValueError(
            f'it holds weights that are not finite, above 0 and at most {_MOST_WEIGHT:g}'
        )
