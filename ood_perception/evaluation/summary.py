# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From the records of one run on one set to its numbers, as JSON values; memory: one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from ..metrics.binning import BINS, BinnedMetrics, binned_metrics, coarse_starts, lower_edges
from ..metrics.bootstrap import RESAMPLES, metric_intervals, resample_weights
from ..metrics.false_alarm_rate import POOLED, RATES, observed_rate, rate_rows
from ..types import Float64Array, Int64Array, JsonDict
from .inspection import inspection_group
from .measure import CLOSED_SET, CURVE_RATES, INSPECTION, Measured
from .record import Arrays, RecordSet, image_counts, region_counts, region_shares, unpack_counts
from .results import interval_record, plain

FOUND_SHARE = 0.5
# Sizes of objects in patches of the network; a patch is what the backbone sees as one token.
PATCH_BINS = (1.0, 4.0, 16.0)
SIZE_NAMES = ('under 1 patch', '1 to 4 patches', '4 to 16 patches', 'over 16 patches')
PLACE_NAMES = ('top third (far)', 'middle third', 'bottom third (near)')
CURVE_POINTS = 160
_HISTOGRAM = np.concatenate([np.arange(0, 6.01, 0.1), [np.inf]])


@dataclass(frozen=True)
class Pooled:
    """
    The sums of a set, and what is kept per image.

    counts: int64 (2, 2, BINS). shares: region -> float64 (BINS,). flagged: int64 (n, R, C).
    pixels: int64 (n, C).
    """

    counts: Int64Array
    shares: dict[str, Float64Array]
    flagged: Int64Array
    pixels: Int64Array
    objects: Float64Array
    patch_area: Float64Array
    places: Int64Array
    images: list[JsonDict]


def pool_records(records: RecordSet, measured: Measured, patch: int) -> Pooled:
    """Read every record once; patch: side of a network patch in network pixels."""
    counts = np.zeros((2, 2, BINS), np.int64)
    shares = {region: np.zeros(BINS) for region in measured.regions}
    places = np.zeros((3, 2), np.int64)
    flagged, pixels, objects, areas, images = [], [], [], [], []
    for kept, arrays in zip(records.kept, records, strict=True):
        flagged.append(arrays['flagged'])
        pixels.append(arrays['pixels'])
        row: JsonDict = {'name': kept.name, 'sequence': kept.sequence}
        if measured.regions:
            own = unpack_counts(arrays)
            counts += own
            for region, sums in shares.items():
                sums += region_shares(arrays, region)
            places += arrays['places']
            objects.append(arrays['objects'])
            scale = arrays['geometry'][4] * arrays['geometry'][5]
            areas.append(np.full(len(arrays['objects']), patch * patch / scale))
            row |= _image_row(own, arrays, measured.regions[-1])
        images.append(row)
    empty = np.zeros((0, 4))
    return Pooled(
        counts=counts,
        shares=shares,
        flagged=np.stack(flagged),
        pixels=np.stack(pixels),
        objects=np.concatenate([empty, *objects]),
        patch_area=np.concatenate([empty[:, 0], *areas]),
        places=places,
        images=images,
    )


def _image_row(counts: Int64Array, arrays: Arrays, region: str) -> JsonDict:
    """Return what is said of one image: its AP, and what the mask found and flagged wrongly."""
    metrics = binned_metrics(*region_counts(counts, region))
    objects, places = arrays['objects'], arrays['places']
    return {
        'average_precision': plain(metrics.average_precision[0]),
        'average_precision_with_outside': plain(metrics.average_precision_with_outside[0]),
        'objects': len(objects),
        'objects_found': int(np.count_nonzero(objects[:, 2] >= 0.5)),
        'anomaly_missed': _missed_share(objects),
        'normal_flagged': int(places[:, 1].sum()) / max(1, int(places[:, 0].sum())),
    }


def _missed_share(objects: Float64Array) -> float | None:
    """Return the share of the image's anomaly pixels that the mask leaves out."""
    if not len(objects):
        return None
    return float(1 - np.sum(objects[:, 0] * objects[:, 2]) / objects[:, 0].sum())


def anomaly_summary(records: RecordSet, measured: Measured, patch: int, seed: int = 0) -> JsonDict:
    """Return everything that is reported of a set of anomalies, or of a product's defects."""
    pooled = pool_records(records, measured, patch)
    regions = {}
    for region in measured.regions:
        positives, negatives, missed = region_counts(pooled.counts, region)
        starts = coarse_starts(positives, negatives)
        coarse = image_counts(records, region, starts)
        regions[region] = {
            **metric_record(binned_metrics(positives, negatives, missed, pooled.shares[region])),
            'images': len(records),
            'intervals': {
                name: interval_record(value)
                for name, value in metric_intervals(coarse, RESAMPLES, seed).items()
            },
            'curve': curve_points(positives, negatives),
            'histogram': score_histogram(positives, negatives),
        }
    groups = {}
    if measured.kind == INSPECTION:
        groups['inspection'] = inspection_group(records, regions['image'], seed)
    return {
        'regions': regions,
        'groups': groups,
        'calibration': calibration_rows(pooled, seed),
        'objects': object_table(pooled.objects, pooled.patch_area),
        'places': place_table(pooled.places),
        'images': pooled.images,
    }


def metric_record(metrics: BinnedMetrics) -> JsonDict:
    """Return values, and under 'bounds' between what the exact ones lie."""
    values: JsonDict = {'bounds': {}}
    for item in fields(metrics):
        value = getattr(metrics, item.name)
        if isinstance(value, tuple):
            values[item.name] = plain(value[0])
            values['bounds'][item.name] = [plain(value[1]), plain(value[2])]
        else:
            values[item.name] = plain(value) if isinstance(value, float) else value
    return values


def calibration_rows(pooled: Pooled, seed: int) -> list[JsonDict]:
    """Return, per target rate, the observed share of normal and of anomaly pixels flagged."""
    weights = resample_weights(len(pooled.pixels), RESAMPLES, seed)
    rows = []
    for index, rate in enumerate(CURVE_RATES):
        row: JsonDict = {'target': rate}
        for label, name in enumerate(('normal', 'anomaly')):
            flagged = pooled.flagged[:, index, label].astype(np.float64)
            pixels = pooled.pixels[:, label].astype(np.float64)
            observed, interval = observed_rate(flagged, pixels, weights)
            row[name], row[f'{name}_interval'] = plain(observed), interval_record(interval)
        rows.append(row)
    return rows


def rate_summary(
    records: RecordSet, class_names: Sequence[str], chosen: Sequence[str], seed: int = 0
) -> JsonDict:
    """Return everything that is reported of a set with known classes: the observed rates."""
    pooled = pool_records(records, Measured(CLOSED_SET, classes=len(class_names)), patch=1)
    shown = (*chosen, POOLED)  # the others are flagged by design

    def rows(rates: Sequence[float]) -> list[JsonDict]:
        places = [CURVE_RATES.index(rate) for rate in rates]
        sequences = [kept.sequence for kept in records.kept]
        counts = pooled.flagged[:, places], pooled.pixels, sequences
        found = rate_rows(*counts, class_names, pooled=chosen, rates=rates, seed=seed)
        return [
            {**asdict(r), 'interval': interval_record(r.interval), 'observed': plain(r.observed)}
            for r in found
            if r.class_name in shown
        ]

    return {
        'rows': rows(RATES),
        'curve': [row for row in rows(CURVE_RATES) if row['group'] == 'all'],
        'images': _class_images(pooled, class_names, chosen),
    }


def _class_images(
    pooled: Pooled, class_names: Sequence[str], chosen: Sequence[str]
) -> list[JsonDict]:
    """Return per image the flagged share of the chosen classes at 1 %."""
    columns = [list(class_names).index(name) for name in chosen]
    totals = pooled.pixels[:, columns].sum(axis=1).tolist()
    flagged = pooled.flagged[:, CURVE_RATES.index(0.01), columns].sum(axis=1).tolist()
    return [
        {**row, 'normal_flagged': part / total if total else None}
        for row, part, total in zip(pooled.images, flagged, totals, strict=True)
    ]


def object_table(objects: Float64Array, patch_area: Float64Array) -> JsonDict:
    """
    Return found objects by size and by place.

    objects: float64 (k, 4) of objects_of. patch_area: float64 (k,), camera pixels of one patch.
    Returns {'all' | 'size' | 'place': rows}, a row {'name', 'objects', 'found', 'flagged'}:
    found counts objects of which FOUND_SHARE is flagged, flagged is their mean flagged share.
    """
    sizes = np.digitize(objects[:, 0] / patch_area, PATCH_BINS)
    places = np.clip((objects[:, 1] * 3 - 1e-9).astype(int), 0, 2)
    return {
        'all': [_object_row('all', objects)],
        'size': [_object_row(n, objects[sizes == i]) for i, n in enumerate(SIZE_NAMES)],
        'place': [_object_row(n, objects[places == i]) for i, n in enumerate(PLACE_NAMES)],
    }


def _object_row(name: str, objects: Float64Array) -> JsonDict:
    count = len(objects)
    return {
        'name': name,
        'objects': count,
        'found': int(np.count_nonzero(objects[:, 2] >= FOUND_SHARE)),
        'flagged': float(objects[:, 2].mean()) if count else None,
        'inside': float(objects[:, 3].mean()) if count else None,
    }


def place_table(places: Int64Array) -> list[JsonDict]:
    """Return false alarms by place; places: int64 (3, 2), summed over images."""
    return [
        {'name': name, 'pixels': int(scored), 'flagged': int(wrong) / scored if scored else None}
        for name, (scored, wrong) in zip(PLACE_NAMES, places.tolist(), strict=True)
    ]


def curve_points(positives: Int64Array, negatives: Int64Array) -> JsonDict:
    """Return at most 2 CURVE_POINTS points of the curve, from the highest score down."""
    found = np.cumsum(positives[::-1])
    alarms = np.cumsum(negatives[::-1])
    chosen = []
    for total in (found, alarms):
        if total[-1]:
            # Evenly spaced, and evenly in the logarithm: both ends of a ROC can be looked at.
            ranks = np.concatenate([
                np.linspace(1, int(total[-1]), CURVE_POINTS // 2),
                np.geomspace(1, int(total[-1]), CURVE_POINTS // 2),
            ])  # fmt: skip
            chosen.append(np.searchsorted(total, ranks))
    places = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    edges = lower_edges()[::-1][places]
    return {
        'threshold': [round(float(max(edge, 0.0)), 6) for edge in edges],
        'recall': _rounded(found[places], found[-1]),
        'false_positive_rate': _rounded(alarms[places], alarms[-1]),
        'precision': _rounded(found[places], found[places] + alarms[places]),
    }


def _rounded(part: Int64Array, total: Int64Array | int) -> list[float]:
    return [round(float(v), 7) for v in part / np.maximum(total, 1)]


def score_histogram(positives: Int64Array, negatives: Int64Array) -> JsonDict:
    """Return the share of pixels per tenth of surprisal, 0 to 6; the last bin is all above."""
    edges = np.maximum(lower_edges(), 0)
    at = np.clip(np.searchsorted(_HISTOGRAM, edges + 1e-6, 'right') - 1, 0, len(_HISTOGRAM) - 2)
    result: JsonDict = {'from': [round(float(v), 1) for v in _HISTOGRAM[:-1]]}
    for name, counts in (('anomaly', positives), ('normal', negatives)):
        sums = np.bincount(at, weights=counts, minlength=len(_HISTOGRAM) - 1)
        result[name] = [round(float(v), 8) for v in sums / max(1, int(counts.sum()))]
    return result
