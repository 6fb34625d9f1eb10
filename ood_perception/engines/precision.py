# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`precision: auto`: the fastest that this machine computes and whose measured cost is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ood_perception.bundle.manifest import Manifest
from ood_perception.engines.cpu import EXACT_BITS
from ood_perception.engines.int8 import INT8, measured_as

# The order of every measurement on CPUs with the instructions for it (docs/engines.md).
FASTEST_FIRST = ('int8', 'bf16', 'f32')
LARGEST_LOSS = 0.5  # points of average precision


@dataclass(frozen=True)
class Choice:
    """Precisions to try, fastest first, f32 last; passed_over: of the others -> reason."""

    precisions: tuple[str, ...]
    passed_over: dict[str, str] = field(default_factory=dict)

    def because(self, taken: str, refused: Mapping[str, str]) -> str:
        """Return why `taken` was taken, in words; refused: by the golden check."""
        reasons = {**self.passed_over, **refused}
        told = [f'not {name}: {reasons[name]}' for name in FASTEST_FIRST if name in reasons]
        return '; '.join([f'{taken} is the fastest that serves', *told])


def choose_precisions(
    manifest: Manifest,
    computes: Sequence[str],
    slow: Mapping[str, str],
    weight_bits: int = EXACT_BITS,
) -> Choice:
    """
    Return what `auto` tries.

    computes: the engine's precisions. slow: precision -> why it does not pay on this machine.
    weight_bits: of int8 on this machine; with 7 the loss that counts was measured with 7.
    bf16 is taken without figures, too, as bundles made before they were measured expect; int8
    needs the ranges of the activations, so its figures are there.
    """
    taken, reasons = [], {}
    for name in FASTEST_FIRST[:-1]:
        key = measured_as(name, weight_bits)
        spec = manifest.precisions.get(key)
        if name not in computes:
            reasons[name] = 'this engine does not compute it'
        elif name in slow:
            reasons[name] = slow[name]
        elif INT8 not in manifest.precisions and name == INT8:
            reasons[name] = 'the bundle holds no quantisation'
        elif spec is None and name == INT8:
            reasons[name] = (
                f'this CPU needs {weight_bits}-bit weights, whose loss the bundle does not hold '
                '(run `trainer quantize`)'
            )
        elif spec is not None and not spec.average_precision_loss < LARGEST_LOSS:
            reasons[name] = (
                f'it costs {spec.average_precision_loss:.2f} points of average precision, '
                f'{LARGEST_LOSS:g} are allowed'
            )
        else:
            taken.append(name)
    return Choice((*taken, 'f32'), reasons)
