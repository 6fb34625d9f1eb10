# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From the records of one run on one set to its numbers, as JSON values; memory: one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ood_perception.metrics.binning import BINS, binned_metrics, coarse_starts
from ood_perception.metrics.bootstrap import RESAMPLES, metric_intervals, resample_weights
from ood_perception.metrics.bounds import BinnedMetrics
from ood_perception.metrics.false_alarm_rate import (
    POOLED,
    RATES,
    PictureAlarms,
    observed_rate,
    promise_rows,
)

from ..types import Float64Array, Int64Array, JsonDict
from .breakdown import CURVE_RATES, curve_points, object_table, place_table, score_histogram
from .inspection import inspection_group
from .measure import CLOSED_SET, INSPECTION, Measured
from .record import Arrays, RecordSet, picture_counts, region_counts, region_shares, unpack_counts
from .results import interval_record, plain, promise_record


@dataclass(frozen=True)
class Pooled:
    """
    The sums of a set, and what is kept per picture.

    counts: int64 (2, 2, BINS). shares: region -> float64 (BINS,).
    """

    counts: Int64Array
    shares: dict[str, Float64Array]
    flagged: Int64Array
    pixels: Int64Array
    objects: Float64Array
    patch_area: Float64Array
    places: Int64Array
    pictures: list[JsonDict]


def pool_records(records: RecordSet, measured: Measured, patch: int) -> Pooled:
    """
    Read every record once.

    patch: side of a network patch in network pixels. flagged int64 (n, R, C), pixels (n, C).
    """
    counts = np.zeros((2, 2, BINS), np.int64)
    shares = {region: np.zeros(BINS) for region in measured.regions}
    places = np.zeros((3, 2), np.int64)
    flagged, pixels, objects, areas, pictures = [], [], [], [], []
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
            row |= _picture_row(own, arrays, measured.regions[-1])
        pictures.append(row)
    empty = np.zeros((0, 4))
    return Pooled(
        counts=counts,
        shares=shares,
        flagged=np.stack(flagged),
        pixels=np.stack(pixels),
        objects=np.concatenate([empty, *objects]),
        patch_area=np.concatenate([empty[:, 0], *areas]),
        places=places,
        pictures=pictures,
    )


def _picture_row(counts: Int64Array, arrays: Arrays, region: str) -> JsonDict:
    """Return what is said of one picture: its AP, and what the mask found and flagged wrongly."""
    metrics = binned_metrics(*region_counts(counts, region))
    objects, places = arrays['objects'], arrays['places']
    return {
        'average_precision': plain(metrics.average_precision[0]),
        'average_precision_missed': plain(metrics.average_precision_missed[0]),
        'objects': len(objects),
        'objects_found': int(np.count_nonzero(objects[:, 2] >= 0.5)),
        'anomaly_missed': _missed_share(objects),
        'normal_flagged': int(places[:, 1].sum()) / max(1, int(places[:, 0].sum())),
    }


def _missed_share(objects: Float64Array) -> float | None:
    """Return the share of the picture's anomaly pixels that the mask leaves out."""
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
        coarse = picture_counts(records, region, starts)
        regions[region] = {
            **metric_record(binned_metrics(positives, negatives, missed, pooled.shares[region])),
            'pictures': len(records),
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
        'pictures': pooled.pictures,
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
    """Return, per promised rate, the observed share of normal and of anomaly pixels flagged."""
    weights = resample_weights(len(pooled.pixels), RESAMPLES, seed)
    rows = []
    for index, rate in enumerate(CURVE_RATES):
        row: JsonDict = {'promised': rate}
        for label, name in enumerate(('normal', 'anomaly')):
            flagged = pooled.flagged[:, index, label].astype(np.float64)
            pixels = pooled.pixels[:, label].astype(np.float64)
            observed, interval = observed_rate(flagged, pixels, weights)
            row[name], row[f'{name}_interval'] = plain(observed), interval_record(interval)
        rows.append(row)
    return rows


def promise_summary(
    records: RecordSet, class_names: Sequence[str], chosen: Sequence[str], seed: int = 0
) -> JsonDict:
    """Return everything that is reported of a set with known classes: the promise."""
    pooled = pool_records(records, Measured(CLOSED_SET, classes=len(class_names)), patch=1)
    shown = (*chosen, POOLED)  # the others are flagged by design

    def rows(rates: Sequence[float]) -> list[JsonDict]:
        places = [CURVE_RATES.index(rate) for rate in rates]
        counts = zip(records.kept, pooled.flagged[:, places], pooled.pixels, strict=True)
        alarms = [
            PictureAlarms(kept.sequence, flagged, pixels) for kept, flagged, pixels in counts
        ]
        found = promise_rows(alarms, class_names, chosen, rates, RESAMPLES, seed)
        return promise_record([row for row in found if row.class_name in shown])

    return {
        'rows': rows(RATES),
        'curve': [row for row in rows(CURVE_RATES) if row['group'] == 'all'],
        'pictures': _class_pictures(pooled, class_names, chosen),
    }


def _class_pictures(
    pooled: Pooled, class_names: Sequence[str], chosen: Sequence[str]
) -> list[JsonDict]:
    """Return per picture the flagged share of the chosen classes at 1 %."""
    columns = [list(class_names).index(name) for name in chosen]
    totals = pooled.pixels[:, columns].sum(axis=1).tolist()
    flagged = pooled.flagged[:, CURVE_RATES.index(0.01), columns].sum(axis=1).tolist()
    return [
        {**row, 'normal_flagged': part / total if total else None}
        for row, part, total in zip(pooled.pictures, flagged, totals, strict=True)
    ]
