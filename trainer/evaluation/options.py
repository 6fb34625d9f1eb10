# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which engine the commands that run a bundle take: one set of options for all of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ood_perception.engines import ENGINES


@dataclass(frozen=True)
class EngineChoice:
    """
    See EngineOptions.

    weights: origin of the backbone's weights, '' = as the bundle says. shared: folder where
    bundles of one backbone share its outputs, None = each runs its own.
    """

    runtime: str = 'auto'
    precision: str = 'auto'
    threads: int = 0
    weights: str = ''
    shared: Path | None = None


def add_engine_arguments(parser: argparse._ActionsContainer) -> None:
    """Add --engine, --precision, --threads and --weights, the fields of EngineChoice."""
    add = parser.add_argument
    add('--engine', default='auto', choices=('auto', *ENGINES))
    add('--precision', default='auto', help='auto, f32, bf16, int8')
    add('--threads', type=int, default=0, help='0: all cores')
    add('--weights', default='', help="origin of the backbone's weights")
