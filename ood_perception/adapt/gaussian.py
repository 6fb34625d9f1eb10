# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The Gaussian of a Mahalanobis head: read out of its graph, moved to a drive's tokens, written back.

A head of one Gaussian holds its mean m and a whitening W, W W^T = inverse covariance, in which the
covariance S of the fit was shrunk: (1 - s) S + s diag(S). That is linear in S, so moments of new
tokens join exactly, shrunk alike, without the tokens of the fit. A head of fewer directions than W
has measures along the first ones, those of most variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.bundle.manifest import HeadSpec, StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.types import Float32Array, Float64Array

CENTER, WHITENING, MEANS = 'head.score.center', 'head.score.whitening', 'head.score.means'
# the node that takes the raw score: as exported today, and by earlier versions
_CURVE = ('/curve/Sub', '/table/Sub')
SHARE = 0.25
_SHRINKAGE = 0.9  # of covariances whose bundle does not say


@dataclass(frozen=True)
class Moments:
    """Mean, float64 (D,), and shrunk covariance, float64 (D, D), of tokens."""

    mean: Float64Array
    covariance: Float64Array

    @cached_property
    def whitening(self) -> Float64Array:
        """W of principal_whitening in standardised dimensions, as float16 holds it."""
        scale = np.sqrt(np.diagonal(self.covariance))
        exact = principal_whitening(self.covariance / np.outer(scale, scale)) / scale[:, None]
        return exact.astype(np.float16).astype(np.float64)

    def standardised_by(self, other: Moments) -> Moments:
        """Return other's mean and deviations with this one's correlations."""
        scale = np.sqrt(np.diagonal(other.covariance) / np.diagonal(self.covariance))
        return Moments(other.mean, self.covariance * np.outer(scale, scale))

    def joined(self, other: Moments, share: float, shrinkage: float) -> Moments:
        """Return the moments of a mixture in which the other has a share, in [0, 1]."""
        step = other.mean - self.mean
        between = shrunk(share * (1 - share) * np.outer(step, step), shrinkage)
        within = (1 - share) * self.covariance + share * other.covariance
        return Moments((1 - share) * self.mean + share * other.mean, within + between)


def principal_whitening(covariance: Float64Array) -> Float64Array:
    """Return W, float64 (D, D), W W^T = inverse covariance; directions of most variance first."""
    variances, directions = np.linalg.eigh(covariance)
    return np.asarray((directions / np.sqrt(variances))[:, ::-1], np.float64)


def shrunk(covariance: Float64Array, shrinkage: float) -> Float64Array:
    """Return (1 - s) S + s diag(S)."""
    return (1 - shrinkage) * covariance + shrinkage * np.diag(np.diagonal(covariance))


def moments_of(tokens: npt.NDArray[np.floating[Any]], shrinkage: float) -> Moments:
    """Return the moments of tokens, float (N, D), N >= 2."""
    wide = tokens.astype(np.float64)
    return Moments(wide.mean(0), shrunk(np.cov(wide, rowvar=False), shrinkage))


@dataclass(frozen=True)
class GaussianHead:
    """
    A head.onnx whose score is the distance to one Gaussian.

    layers: the token outputs that it reads side by side. size: of its grid, (gh, gw). rank: how
    many directions of the whitening count.
    """

    model: Any
    stage: StageSpec
    layers: tuple[str, ...]
    size: tuple[int, int]
    shrinkage: float
    rank: int

    @cached_property
    def moments(self) -> Moments:
        """The Gaussian as it is stored."""
        from onnx import numpy_helper

        stored = {item.name: item for item in self.model.graph.initializer}
        half = stored.get(f'{WHITENING}.half', stored.get(WHITENING))
        center, whitening = (
            numpy_helper.to_array(item).astype(np.float64) for item in (stored[CENTER], half)
        )
        return Moments(center, np.linalg.inv(whitening @ whitening.T))

    @cached_property
    def _curve(self) -> Any:
        """What makes surprisal of the raw score, as numpy runs it."""
        from onnx import shape_inference
        from onnx.reference import ReferenceEvaluator
        from onnx.utils import Extractor

        raw = next(node.input[0] for node in self.model.graph.node if node.name in _CURVE)
        inferred = shape_inference.infer_shapes(self.model)
        cut = Extractor(inferred).extract_model([raw], [self.stage.outputs[0]])
        return raw, ReferenceEvaluator(cut)

    def surprisal(self, tokens: npt.NDArray[np.floating[Any]], moments: Moments) -> Float32Array:
        """Return the graph's surprisal, float32 (V, gh, gw), of tokens (V, rows, columns, D)."""
        whitening = moments.whitening[:, : self.rank].astype(np.float32)
        whitened = (tokens.astype(np.float32) - moments.mean.astype(np.float32)) @ whitening
        squared = (whitened * whitened).sum(3)
        size = (self.size[1], self.size[0])
        raw = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in squared])
        name, curve = self._curve
        return np.asarray(curve.run(None, {name: raw.astype(np.float32)})[0], np.float32)

    def with_moments(self, moments: Moments) -> bytes:
        """Return head.onnx with another Gaussian."""
        from onnx import ModelProto, numpy_helper

        changed = ModelProto()
        changed.CopyFrom(self.model)
        new = {
            CENTER: moments.mean,
            MEANS: np.zeros((1, self.rank)),
            WHITENING: moments.whitening,
        }
        for item in changed.graph.initializer:
            values = new.get(item.name.removesuffix('.half'))
            if values is not None:
                kind = numpy_helper.to_array(item).dtype
                item.CopyFrom(numpy_helper.from_array(values.astype(kind), item.name))
        return bytes(changed.SerializeToString(deterministic=True))


def gaussian_head(bundle: Bundle, head: HeadSpec) -> GaussianHead | None:
    """Return a bundle's head of one Gaussian, None where it has another kind of head."""
    import onnx

    manifest = bundle.manifest
    stage = next(stage for stage in manifest.stages if head.surprisal in stage.outputs)
    tokens = manifest.stages[0].outputs
    model = onnx.load(bundle.stage_path(stage))
    shapes = {item.name: item.dims for item in model.graph.initializer}
    calibrated = any(node.name in _CURVE for node in model.graph.node)
    if shapes.get(MEANS, [0])[0] != 1 or CENTER not in shapes or not calibrated:
        return None
    layers = _read_layers(model.graph.node, tokens)
    width, rank = shapes[CENTER][0], shapes[MEANS][1]
    whole = set(shapes.get(f'{WHITENING}.half') or shapes[WHITENING]) == {width}
    recipe = manifest.provenance.get('recipe', {}).get('baseline', {})
    # the first directions are those of standardised tokens
    if not layers or not whole or not (rank == width or recipe.get('standardise', False)):
        return None
    size = manifest.input.grid(head.upsampling)
    shrinkage = float(recipe.get('shrinkage', _SHRINKAGE))
    return GaussianHead(model, stage, layers, size, shrinkage, rank)


def _read_layers(nodes: Sequence[Any], tokens: Sequence[str]) -> tuple[str, ...]:
    """Return the token inputs behind the node that subtracts the centre, () where others are."""
    makers = {output: node for node in nodes for output in node.output}
    source = next((node.input[0] for node in nodes if CENTER in node.input), '')
    joined = makers.get(source)
    parts = list(joined.input) if joined is not None and joined.op_type == 'Concat' else [source]
    names = []
    for part in parts:
        cast = makers.get(part)
        names.append(cast.input[0] if cast is not None and cast.op_type == 'Cast' else part)
    return tuple(names) if set(names) <= set(tokens) else ()
