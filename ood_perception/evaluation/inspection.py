# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One product of an inspection set: is an image defective, and where; MVTec AD's three numbers.

An image's score is the maximum of its score map. What AUPRO needs is kept per image in the bins
of binning.py, so that memory does not grow with the set and the exact value has bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..metrics.aupro import FPR_LIMIT, aupro, bounded_aupro, image_auroc
from ..metrics.binning import Bounded, coarse_starts
from ..metrics.bootstrap import RESAMPLES, ImageHistograms, resample_weights
from ..postprocess.image_score import image_surprisal
from ..types import Detection, Float64Array, Int64Array, JsonDict, UInt8Array
from .record import Arrays, RecordSet, image_counts, pooled_counts
from .results import group_record, plain


def inspection_counts(detection: Detection, labels: UInt8Array) -> Arrays:
    """Return what products need of an image beside what every set of anomalies has."""
    return {
        'image_score': np.array(image_surprisal(detection.surprisal, detection.scored)),
        'defective': np.array(bool((labels == 1).any())),
    }


class Product(NamedTuple):
    """
    What is known of a product's n images.

    shares: float64 (BINS,), summed weights of the anomaly pixels. negatives: int64 (BINS,).
    images: their coarse counts. scores, defective: float64 and uint8 (n,).
    """

    shares: Float64Array
    negatives: Int64Array
    images: ImageHistograms
    scores: Float64Array
    defective: UInt8Array

    @property
    def components(self) -> Int64Array:
        """True components of every image, int64 (n,)."""
        assert self.images.components is not None
        return self.images.components

    def aupro(self) -> Bounded:
        """Return the AUPRO up to an FPR of 0.30, and between what the exact one lies."""
        components = int(self.components.sum())
        return bounded_aupro(self.shares, self.negatives, components, FPR_LIMIT)


def read_product(records: RecordSet) -> Product:
    """Read every record of inspection_counts."""
    positives, negatives, _, shares = pooled_counts(records, 'image')
    images = image_counts(records, 'image', coarse_starts(positives, negatives))
    rows = [(float(a['image_score']), bool(a['defective'])) for a in records]
    scores, defective = zip(*rows, strict=True)
    return Product(shares, negatives, images, np.array(scores), np.array(defective, np.uint8))


def inspection_values(product: Product) -> dict[str, float]:
    """Return image AUROC and AUPRO of a product."""
    auroc = float(image_auroc(product.scores, product.defective)[0])
    return {'image_auroc': auroc, 'aupro': product.aupro().value}


def inspection_samples(product: Product, weights: Float64Array) -> dict[str, Float64Array]:
    """Return the same (R,) of R multisets, weights (R, n); AUPRO in at most 2048 coarse bins."""
    return {
        'image_auroc': image_auroc(product.scores, product.defective, weights),
        'aupro': aupro(product.images.curve(weights), weights @ product.components),
    }


def inspection_group(records: RecordSet, image_region: JsonDict, seed: int = 0) -> JsonDict:
    """Return the group of a product (results.py); image_region: the set's whole image."""
    product = read_product(records)
    weights = resample_weights(len(records), RESAMPLES, seed)
    defective = int(product.defective.sum())
    group = group_record(
        inspection_values(product),
        inspection_samples(product, weights),
        len(records),
        {
            'defective_images': defective,
            'flawless_images': len(records) - defective,
            'regions': int(product.components.sum()),
            'aupro_fpr_limit': FPR_LIMIT,
        },
    )
    group['values']['pixel_auroc'] = image_region['auroc']
    group['intervals']['pixel_auroc'] = image_region['intervals']['auroc']
    bounds = product.aupro()
    group['bounds'] = {
        'aupro': [plain(bounds.low), plain(bounds.high)],
        'pixel_auroc': image_region['bounds']['auroc'],
    }
    return group
