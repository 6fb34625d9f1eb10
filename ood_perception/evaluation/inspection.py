# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One product of an inspection set: is a picture defective, and where; MVTec AD's three numbers.

A picture's score is the maximum of its score map. What AUPRO needs is kept per picture in the bins
of bins.py, so that memory does not grow with the set and the exact value has bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ood_perception.metrics.aupro import FPR_LIMIT, RegionHistograms, bounded_aupro, image_auroc
from ood_perception.metrics.binning import BINS, coarse_starts, lower_edges
from ood_perception.metrics.bootstrap import RESAMPLES, resample_weights
from ood_perception.metrics.bounds import Bounded
from ood_perception.postprocess.image_score import image_surprisal
from ood_perception.types import Float64Array, Int64Array

from ..types import Detection, JsonDict, UInt8Array
from .groups import group_record
from .record import Arrays, RecordSet, unpack_counts, unpack_shares
from .results import plain


def inspection_counts(detection: Detection, defective: bool) -> Arrays:
    """
    Return what the metrics of products need of a picture beside what every set of anomalies has.

    defective: whether the picture shows a defect at all.
    """
    return {
        'picture_score': np.array(image_surprisal(detection.surprisal, detection.scored)),
        'defective': np.array(defective),
    }


class Product(NamedTuple):
    """
    The sums of a product: shares float64, positives and negatives int64, (BINS,) each; number of
    true components; scores float64 and defective uint8, (n,) each.
    """

    shares: Float64Array
    positives: Int64Array
    negatives: Int64Array
    components: int
    scores: Float64Array
    defective: UInt8Array


def pool_product(records: RecordSet) -> Product:
    """Read every record of inspection_counts once."""
    shares = np.zeros(BINS)
    counts = np.zeros((2, BINS), np.int64)
    components, scores, defective = 0, [], []
    for arrays in records:
        shares += _dense_shares(arrays)
        counts += unpack_counts(arrays).sum(axis=0)
        components += int(arrays['components'])
        scores.append(float(arrays['picture_score']))
        defective.append(bool(arrays['defective']))
    return Product(
        *(shares, counts[1], counts[0], components),
        *(np.array(scores), np.array(defective, np.uint8)),
    )


def _dense_shares(arrays: Arrays) -> Float64Array:
    shares: Float64Array = unpack_shares(arrays).sum(axis=0)
    return shares


def product_aupro(product: Product) -> Bounded:
    """Return the AUPRO of a product up to an FPR of 0.30, and between what the exact one lies."""
    return bounded_aupro(product.shares, product.negatives, product.components, FPR_LIMIT)


def inspection_values(records: RecordSet) -> dict[str, float]:
    """Return image AUROC and AUPRO of a product."""
    product = pool_product(records)
    auroc = float(image_auroc(product.scores, product.defective)[0])
    return {'image_auroc': auroc, 'aupro': product_aupro(product).value}


def inspection_samples(records: RecordSet, weights: Float64Array) -> dict[str, Float64Array]:
    """
    Return the same of R multisets of the pictures, (R,) each; weights: float64 (R, n).

    AUPRO in at most 2048 coarse bins: its spread is far wider than one.
    """
    product = pool_product(records)
    starts = coarse_starts(product.positives, product.negatives)
    shares = np.empty((len(records), len(starts)))
    negatives = np.empty(shares.shape, np.int64)
    components = np.empty(len(records), np.int64)
    for index, arrays in enumerate(records):
        shares[index] = np.add.reduceat(_dense_shares(arrays), starts)
        normal = unpack_counts(arrays).sum(axis=0)[0]
        negatives[index] = np.add.reduceat(normal, starts)
        components[index] = int(arrays['components'])
    histograms = RegionHistograms(lower_edges()[starts], shares, negatives, components)
    return {
        'image_auroc': image_auroc(product.scores, product.defective, weights),
        'aupro': histograms.aupro(weights),
    }


def inspection_group(records: RecordSet, image_region: JsonDict, seed: int = 0) -> JsonDict:
    """
    Return the group of a product; see groups.py.

    image_region: the set's record of the whole image, whose AUROC is the pixel AUROC.
    """
    product = pool_product(records)
    weights = resample_weights(len(records), RESAMPLES, seed)
    defective = int(product.defective.sum())
    group = group_record(
        inspection_values(records),
        inspection_samples(records, weights),
        len(records),
        {
            'defective_pictures': defective,
            'flawless_pictures': len(records) - defective,
            'regions': product.components,
            'aupro_fpr_limit': FPR_LIMIT,
        },
    )
    group['values']['pixel_auroc'] = image_region['auroc']
    group['intervals']['pixel_auroc'] = image_region['intervals']['auroc']
    bounds = product_aupro(product)
    group['bounds'] = {
        'aupro': [plain(bounds.low), plain(bounds.high)],
        'pixel_auroc': image_region['bounds']['auroc'],
    }
    return group
