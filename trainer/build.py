# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer build`: compile_bundle, for who trains and builds on one machine."""

from __future__ import annotations

from collections.abc import Sequence

from ood_perception.cli import compile_bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a bundle's engine for this machine, or ahead of time for named GPUs (--gpu)."""
    return compile_bundle(arguments)
