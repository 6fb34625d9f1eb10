# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What turns a bundle's float32 backbone into an int8 one: measured once, by the trainer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ood_perception.bundle.manifest_json import read_as
from ood_perception.bundle.store import Bundle
from ood_perception.engines.cpu import REDUCED_BITS
from ood_perception.errors import BundleError, EngineError
from ood_perception.files import make_file

QUANTIZATION_NAME = 'quantization.json'
INT8 = 'int8'
REDUCED_RANGE = 'int8_reduced_range'  # int8 with weights of 7 bits: its entry in a manifest


@dataclass(frozen=True)
class Quantization:
    """
    Static quantisation of the products with constant weights.

    ranges: input tensor of such products -> least and greatest value on in-distribution frames,
        after smoothing (mean over frames, which clips the rarest values).
    smoothing: tensor -> exponents k, one per channel: the channel is divided by 2^k where it is
        made and the weights that read it are multiplied by 2^k (SmoothQuant, Xiao et al. 2023,
        with powers of two, so that the float32 graph stays the same to the bit).
    kept: names of MatMul nodes that are not quantised, since that hurt when it was measured.
    """

    ranges: dict[str, tuple[float, float]]
    smoothing: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def measured_as(precision: str, weight_bits: int) -> str:
    """Return under which name a manifest's `precisions` hold what a precision costs."""
    reduced = precision == INT8 and weight_bits == REDUCED_BITS
    return REDUCED_RANGE if reduced else precision


def read_quantization(path: Path) -> Quantization:
    """Read the facts; BundleError naming file and field where they cannot be read."""
    facts = read_as(Quantization, path)
    wrong = [name for name, (low, high) in facts.ranges.items() if not low < high]
    if wrong or not facts.ranges:
        raise BundleError(
            f'{path}: {f"range of {wrong[0]} is empty" if wrong else "no ranges"}; run `trainer '
            'quantize` again'
        )
    return facts


def write_quantization(path: Path, facts: Quantization) -> None:
    """Write the facts, whole or not at all; the same facts give the same bytes."""
    text = json.dumps(asdict(facts), sort_keys=True, separators=(',', ':'))
    # one tensor per line: a difference of two files can be read
    text = text.replace(',"/', ',\n"/').replace('},', '},\n') + '\n'
    make_file(path, lambda file: file.write_text(text, encoding='utf-8'))


def quantization_path(bundle: Bundle) -> Path:
    """Return the place of a bundle's facts; EngineError where it has none."""
    spec = bundle.manifest.precisions.get(INT8)
    if spec is None or not spec.file:
        raise EngineError(
            f'precision int8: bundle {bundle.manifest.name} holds no quantisation; run `trainer '
            'quantize` on it, or use auto'
        )
    return bundle.path(spec.file)
