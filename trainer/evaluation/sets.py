# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One opened data set as `trainer evaluate` measures it: images, what is kept, numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ood_perception.bundle.manifest import Manifest
from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.class_labels import label_groups
from ood_perception.evaluation.maritime import SeaClasses, maritime_summary
from ood_perception.evaluation.measure import ANOMALY, CLOSED_SET, INSPECTION, MARITIME, Measured
from ood_perception.evaluation.record import RecordSet
from ood_perception.evaluation.run import ImageTask
from ood_perception.evaluation.second_pass import (
    TRACKS,
    component_summary,
    open_set_group,
    open_set_truth,
    smiyc_group,
)
from ood_perception.evaluation.summary import anomaly_summary, rate_summary
from ood_perception.image.image_files import need_anomaly
from ood_perception.metrics.smiyc import size_limits
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.settings import chosen_classes, class_ids
from ood_perception.types import UInt8Array

from ..datasets import EvaluationSet

ANOMALY_KINDS = (ANOMALY, INSPECTION)
# Kinds whose images have no ground that could be told from the rest: all of it is scored.
WHOLE_IMAGE = (INSPECTION, MARITIME)
VARIANTS = ('smiyc',)


@dataclass(frozen=True)
class Extras:
    """
    What is measured beside the usual.

    limit: images of each set, 0 = all: the first, or with spaced as many evenly spaced.
    variants: of VARIANTS. seed: of the bootstrap.
    sea: water and sky of the bundle.
    roi_given: the settings' region of interest was asked for and holds for every set.
    known_product: a product is scored by its own class of the bundle alone. reject: class that
    flagged pixels become in the final map of sets with known classes, '' = none.
    """

    limit: int = 0
    spaced: bool = False
    variants: tuple[str, ...] = ()
    seed: int = 0
    sea: SeaClasses = field(default_factory=SeaClasses)
    roi_given: bool = False
    known_product: bool = False
    reject: str = ''


def checked_set(data: EvaluationSet, extras: Extras) -> EvaluationSet:
    """
    Return the set, cut to the images that extras.limit leaves.

    Raises ConfigError for a set without labels, DataError for anomalies of which there is none.
    """
    if not data.labelled:
        raise ConfigError(f'{data.name} has no labels: it can be submitted, not evaluated')
    limit = min(extras.limit, len(data))
    spaced = np.linspace(0, len(data) - 1, limit).round().astype(int).tolist()
    chosen = data.subset(spaced if extras.spaced else range(limit)) if limit else data
    if data.kind == ANOMALY:
        ids = [file_id for file_id, known in data.images.classes.ids.items() if known == 1]
        part = f'{len(chosen)} images of {data.name}' if limit else data.name
        need_anomaly(_labels_of(chosen), ids, part)
    return chosen


def _labels_of(data: EvaluationSet) -> Iterator[UInt8Array]:
    """Yield the ids of the label files; broken ones are met when their image is measured."""
    for index in range(len(data)):
        with suppress(DataError):
            yield data.images.file_ids(index)


def settings_of(
    data: EvaluationSet, manifest: Manifest, settings: Settings, extras: Extras
) -> Settings:
    """
    Return the settings for a set: products and seas are scored whole unless told otherwise.

    Raises ConfigError where a known product is none of the bundle's classes.
    """
    if data.kind in WHOLE_IMAGE and not extras.roi_given:
        settings = replace(settings, roi=RoiSettings('none'))
    if data.kind == INSPECTION and extras.known_product:
        product = data.name.split('/')[1]
        class_ids(manifest, [product], '--known-product')
        settings = replace(settings, in_distribution=(product,))
    return settings


def measured_set(data: EvaluationSet, pipeline: Pipeline, extras: Extras) -> Measured:
    """Return how a set is measured; ConfigError where the bundle does not know its classes."""
    if data.kind in ANOMALY_KINDS:
        smallest = size_limits(TRACKS[data.track]).true if data.track else 1
        return Measured(data.kind, data.roi == 'image', smallest=smallest)
    manifest = pipeline.manifest
    names = tuple(spec.name for spec in manifest.classes)
    same = names == data.images.classes.names
    reject = class_ids(manifest, [extras.reject], '--reject')[0] if extras.reject else None
    if data.kind == MARITIME:
        sea, classes = extras.sea.table(manifest), len(names) if same else 0
        return Measured(MARITIME, classes=classes, reject=reject, sea=sea)
    if not same:
        raise ConfigError(
            f'bundle {manifest.name} knows {list(names)}, the images are labelled with '
            f'{list(data.images.classes.names)}: observed rates need the same classes'
        )
    return Measured(CLOSED_SET, classes=len(names), reject=reject)


def image_tasks(data: EvaluationSet) -> list[ImageTask]:
    """Return one task an image."""
    images, panoptic = data.images, data.panoptic
    return [
        ImageTask(
            name,
            images.sequences[index],
            (images.images[index], images.labels[index])
            + (panoptic.files(index) if panoptic else ()),
            partial(_read, data, index),
            partial(panoptic, index) if panoptic else None,
        )
        for index, name in enumerate(images.names)
    ]


def _read(data: EvaluationSet, index: int) -> tuple[UInt8Array, UInt8Array]:
    """Read an image and its labels; DataError also for a defect that nobody has drawn."""
    image, labels = data.images.read(index)
    if data.anomalous_images and data.anomalous_images[index] != (labels == 1).any():
        raise DataError(
            f'{data.images.labels[index]} marks no defect, but its image lies among the '
            'defective ones: unpack the product anew'
        )
    return image, labels


def image_reader(data: EvaluationSet) -> Callable[[str], Any]:
    """Return what reads an image and its labels by name."""
    return lambda name: data.images.read(data.places[name])


def _open_set_reader(data: EvaluationSet, known: int) -> Callable[[str], Any]:
    """Return what reads an image and the labels of its known classes and anomalies."""

    def read(name: str) -> tuple[UInt8Array, UInt8Array]:
        assert data.classes is not None
        image, anomaly = data.images.read(data.places[name])
        return image, open_set_truth(anomaly, data.classes.read(data.places[name])[1], known)

    return read


def label_reader(data: EvaluationSet) -> Callable[[str], Any]:
    """
    Return what reads an image's labels by name, with a black image of their size.

    For passes that look at no colour: decoding the images took half of their time.
    """

    def read(name: str) -> tuple[UInt8Array, UInt8Array]:
        labels = data.images.known(data.places[name]).astype(np.uint8)
        return np.zeros((*labels.shape, 3), np.uint8), labels

    return read


def summary_of(
    pipeline: Pipeline,
    data: EvaluationSet,
    measured: Measured,
    records: RecordSet,
    extras: Extras,
) -> dict[str, Any]:
    """Return everything that is reported of a run on a set."""
    manifest = pipeline.manifest
    result: dict[str, Any] = {
        'title': data.title,
        'kind': data.kind,
        'roi': data.roi,
        'scored': pipeline.settings.roi.mode,
        'in_distribution': list(chosen_classes(manifest, pipeline.settings)),
        'licence': data.licence,
        'count': len(records),
        'skipped': [asdict(one) for one in records.skipped],
        'groups': {},
        'notes': [],
    }
    if extras.reject and not measured.classes:
        why = "the set does not label the bundle's classes"
        result['notes'].append(f'--reject {extras.reject} is left out: {why}.')
    names = tuple(spec.name for spec in manifest.classes)
    if measured.regions:
        result |= anomaly_summary(records, measured, manifest.input.patch, extras.seed)
        _second_pass(result, data, records, extras, names)
        return result
    if measured.classes:
        chosen = pipeline.settings.in_distribution or manifest.in_distribution
        result |= rate_summary(records, names, chosen, extras.seed)
    if data.kind == MARITIME:
        result |= maritime_summary(records, data.panoptic is not None, extras.seed)
        sea = {'water': list(extras.sea.water), 'sky': list(extras.sea.sky)}
        result['groups']['maritime']['facts'] |= sea
    if measured.classes:
        result['groups'] |= label_groups(records, names, measured.reject, extras.seed)
    return result


def _second_pass(
    summary: dict[str, Any],
    data: EvaluationSet,
    records: RecordSet,
    extras: Extras,
    names: tuple[str, ...],
) -> None:
    """
    Add what needs the labels again: a track's components, variants, open-set mean IoU.

    The latter where the set labels the classes that the bundle knows, `names`.
    """
    regions, read = summary['regions'], label_reader(data)
    for region, record in regions.items() if data.track else ():
        threshold = record['best_f1_threshold']
        if threshold is not None:
            record['components'] = component_summary(
                records, read, data.track, threshold, extras.seed, region
            )
    if 'smiyc' in extras.variants and data.kind == ANOMALY:
        summary['groups']['smiyc'] = smiyc_group(records, read, data.track, extras.seed)
    if data.classes is None:
        return
    if names != data.classes.classes.names:
        summary['notes'].append(
            f'Open-set mean IoU is left out: the set labels '
            f'{", ".join(data.classes.classes.names)}; the bundle knows {", ".join(names)}.'
        )
        return
    reader = _open_set_reader(data, len(names))
    summary['groups']['open_set'] = open_set_group(records, reader, names, extras.seed)
