# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a precision costs: AP on held-out images with pasted objects, against float32."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.manifest import PrecisionSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.int8 import Quantization, write_quantization
from ood_perception.engines.openvino import OpenVinoEngine
from ood_perception.files import CACHE_ENV, make_file
from ood_perception.image.geometry import to_camera, to_network
from ood_perception.image.views import merged
from ood_perception.metrics.bootstrap import Interval, image_histograms, paired_difference
from ood_perception.metrics.pixel import ScoredImage, exact_metrics, scored_image
from ood_perception.types import Geometry

from ...artifacts import digest, load_values, save_values
from ...data.images import ImageList
from ...datasets.pasted import read_ground

Array = npt.NDArray[Any]
CRITERION = 'average_precision'


@dataclass(frozen=True)
class Outputs:
    """surprisal float32 and labels uint8 (N, gh, gw) of a list, backbone_ms (N,)."""

    surprisal: Array
    labels: Array
    backbone_ms: Array


@dataclass(frozen=True)
class Cost:
    """
    What a candidate costs against float32, AP in points (0..100).

    loss: AP of float32 - AP. interval: 95 % over images, paired. difference: mean |difference|
    of surprisal up to 6; difference_999: its 99.9 % quantile. labels: least share of equal labels
    of an image. relative_time: of the backbone, median over images of the ratio.
    """

    average_precision: float
    loss: float
    interval: tuple[float, float]
    difference: float
    difference_999: float
    labels: float
    relative_time: float


class CostBench:
    """Runs candidates on one list of images; what was run is kept in a folder."""

    def __init__(
        self,
        bundle: Bundle,
        images: ImageList,
        folder: Path,
        threads: int,
        weight_bits: int,
        data: str = 'images with pasted objects',
    ) -> None:
        """
        Bundle: completed. images: an anomaly set 'pasted' (datasets.pasted).

        weight_bits: of int8, where nothing else is asked for. data: names the images, for people.
        """
        self.bundle, self.images, self.folder, self.data = bundle, images, folder, data
        self.weight_bits = weight_bits
        self.threads = threads
        folder.mkdir(parents=True, exist_ok=True)

    def outputs(
        self, precision: str, facts: Quantization | None = None, weight_bits: int = 0
    ) -> Outputs:
        """
        Return what the bundle gives in a precision (int8: by the facts), kept or run now.

        weight_bits: of int8, 0 = the bench's.
        """
        bits = weight_bits or self.weight_bits
        content = [precision, self.bundle.sha256, self.images.names]
        content += [dataclasses.asdict(facts), bits] if facts else []
        key = digest(content)[:16]
        path = self.folder / f'{precision}-{key}.npz'
        if not path.is_file():
            with _candidate(self.bundle, facts) as bundle:
                made = self._run(bundle, precision, bits)
            make_file(path, lambda file: save_values(file, made))
        return load_values(path, Outputs)

    def _run(self, bundle: Bundle, precision: str, weight_bits: int) -> Outputs:
        from tqdm import tqdm

        manifest = bundle.manifest
        options = EngineOptions(
            *('openvino', precision, self.threads),
            compiled_classes=manifest.in_distribution,
            weight_bits=weight_bits,
        )
        rows: list[tuple[Array, Array, float]] = []
        with OpenVinoEngine(bundle, options) as engine:
            vector = engine.class_vector(manifest.in_distribution)
            for index in tqdm(range(len(self.images)), precision, leave=False):
                image = self.images.read(index)[0]
                geometries = geometries_of(bundle, image)
                images = np.stack([to_network(image, one) for one in geometries])
                output = engine.run(images, vector)
                head_free = [ms for name, ms in output.stage_ms.items() if name != 'head']
                whole, *views = output.surprisal.copy()
                surprisal = merged(whole, views, geometries)
                rows.append((surprisal, output.labels[0].copy(), sum(head_free)))
        maps, labels, times = zip(*rows, strict=True)
        return Outputs(np.stack(maps), np.stack(labels), np.array(times, np.float32))

    def _scored(self, outputs: Outputs) -> list[ScoredImage]:
        """Return the images' road pixels at label size."""
        parts = []
        for index, grid in enumerate(outputs.surprisal):
            image, labels = self.images.read(index)
            scores = to_camera(grid, geometries_of(self.bundle, image)[0])
            parts.append(scored_image(scores, labels, read_ground(self.images.labels[index])))
        return parts

    @cached_property
    def _float(self) -> tuple[Outputs, list[ScoredImage]]:
        outputs = self.outputs('f32')
        return outputs, self._scored(outputs)

    @property
    def float_precision(self) -> float:
        """AP of float32 in points."""
        return 100 * float(exact_metrics(self._float[1]).average_precision)

    def cost(self, outputs: Outputs) -> Cost:
        """Compare with float32 on the same images."""
        exact, exact_parts = self._float
        parts = self._scored(outputs)
        precision = 100 * float(exact_metrics(parts).average_precision)
        pair = [image_histograms(part) for part in (exact_parts, parts)]
        interval: Interval = paired_difference(*pair)[CRITERION]
        low = exact.surprisal <= self.bundle.manifest.golden.surprisal_bound
        difference = np.abs(outputs.surprisal - exact.surprisal)[low]
        equal = (outputs.labels == exact.labels).mean(axis=(1, 2))
        return Cost(
            average_precision=precision,
            loss=self.float_precision - precision,
            interval=(100 * interval.low, 100 * interval.high),
            difference=float(difference.mean()),
            difference_999=float(np.quantile(difference, 0.999)),
            labels=float(equal.min()),
            relative_time=float(np.median(outputs.backbone_ms / exact.backbone_ms)),
        )

    def gain(self, outputs: Outputs, base: Outputs) -> Interval:
        """Return the paired 95 % interval of AP(outputs) - AP(base), in points."""
        pair = [image_histograms(self._scored(one)) for one in (outputs, base)]
        found = paired_difference(*pair)[CRITERION]
        return Interval(100 * found.low, 100 * found.high, found.undefined)


@contextmanager
def _candidate(bundle: Bundle, facts: Quantization | None) -> Iterator[Bundle]:
    """Offer the bundle with other facts; what is compiled for it is thrown away afterwards."""
    if facts is None:
        yield bundle
        return
    before = os.environ.get(CACHE_ENV)
    with TemporaryDirectory(prefix='ood_quantize_') as folder:
        file = Path(folder) / 'quantization.json'
        write_quantization(file, facts)
        spec = PrecisionSpec(0.0, (0.0, 0.0), 1.0, 0.0, str(file))  # absolute: not in the bundle
        manifest = dataclasses.replace(bundle.manifest, precisions={'int8': spec})
        os.environ[CACHE_ENV] = folder
        try:
            yield dataclasses.replace(bundle, manifest=manifest)
        finally:
            os.environ.pop(CACHE_ENV)
            if before is not None:
                os.environ[CACHE_ENV] = before


def geometries_of(bundle: Bundle, image: Array) -> tuple[Geometry, ...]:
    """Return how an image (H, W, 3) is brought to the bundle's network: whole, then each view."""
    return bundle.manifest.input.geometries((int(image.shape[0]), int(image.shape[1])))


def groups_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of products ('mlp/fc2', ...) -> their nodes, '/blocks.3/mlp/fc2/MatMul'."""
    groups: dict[str, list[str]] = {}
    for name in names:
        _, _, rest = name.strip('/').partition('/')
        groups.setdefault(rest.removesuffix('/MatMul') or name, []).append(name)
    return {kind: tuple(nodes) for kind, nodes in groups.items()}
