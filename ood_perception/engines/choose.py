# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`precision: auto`: the fastest that this machine computes and whose measured cost is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ood_perception.bundle.manifest import Manifest

# The order of every measurement on CPUs with the instructions for it (docs/engines.md).
FASTEST_FIRST = ('int8', 'bf16', 'f32')
LARGEST_LOSS = 0.5  # points of average precision
# Instructions that multiply bytes and sum into 32 bits; without them int8 is no faster.
BYTE_PRODUCTS = frozenset(['avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp', 'i8mm'])


@dataclass(frozen=True)
class Choice:
    """
    Precisions to try, fastest first, and why the others were passed over.

    precisions: ends with f32. passed_over: precision -> reason.
    """

    precisions: tuple[str, ...]
    passed_over: dict[str, str] = field(default_factory=dict)

    def because(self, taken: str, refused: Mapping[str, str]) -> str:
        """Return why `taken` was taken, in words; refused: by the golden check."""
        reasons = {**self.passed_over, **refused}
        told = [f'not {name}: {reasons[name]}' for name in FASTEST_FIRST if name in reasons]
        return '; '.join([f'{taken} is the fastest that serves', *told])


def choose_precisions(
    manifest: Manifest, computes: Sequence[str], slow: Mapping[str, str]
) -> Choice:
    """
    Return what `auto` tries.

    computes: the engine's precisions. slow: precision -> why it does not pay on this machine.
    bf16 is taken without figures, too, as bundles made before they were measured expect; int8
    needs the ranges of the activations, so its figures are there.
    """
    taken, reasons = [], {}
    for name in FASTEST_FIRST[:-1]:
        spec = manifest.precisions.get(name)
        if name not in computes:
            reasons[name] = 'this engine does not compute it'
        elif name in slow:
            reasons[name] = slow[name]
        elif spec is None and name == 'int8':
            reasons[name] = 'the bundle holds no quantisation'
        elif spec is not None and not spec.average_precision_loss < LARGEST_LOSS:
            reasons[name] = (
                f'it costs {spec.average_precision_loss:.2f} points of average precision, '
                f'{LARGEST_LOSS:g} are allowed'
            )
        else:
            taken.append(name)
    return Choice((*taken, 'f32'), reasons)


def without_byte_products(flags: frozenset[str]) -> str:
    """Return why int8 does not pay on a CPU of these flags, '' where it does."""
    if flags & BYTE_PRODUCTS:
        return ''
    return 'this CPU has no instructions for it (VNNI)'


def cpu_flags() -> frozenset[str]:
    """Return the features of this CPU as Linux names them; empty where it does not tell."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, values = line.partition(':')
        if name.strip() in ('flags', 'Features'):
            return frozenset(values.split())
    return frozenset()
