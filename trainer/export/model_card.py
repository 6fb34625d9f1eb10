# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""MODEL_CARD.md: what a bundle is, derives from and is worth, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ood_perception.bundle.manifest import Manifest
from ood_perception.reports.html import render


def model_card(manifest: Manifest, data: str) -> str:
    """
    Return the card as Markdown.

    data: a sentence or more on the pictures that the head was fitted on, and their licence.
    """
    steps = manifest.provenance.get('finetuned', {}).get('steps')
    tuned = f'fine-tuned for {steps} steps, its weights are in this bundle' if steps else 'frozen'
    return render('model_card.md.j2', manifest=manifest, data=data, tuned=tuned, facts=_facts)


def _facts(values: Mapping[str, Any], depth: int = 0) -> str:
    """Return nested facts as an indented list."""
    lines = []
    for name, value in values.items():
        label = f'{"  " * depth}* {name.replace("_", " ")}'
        if isinstance(value, Mapping):
            lines += [f'{label}:', _facts(value, depth + 1)]
        elif isinstance(value, (list, tuple)):
            lines.append(f'{label}: {", ".join(_number(item) for item in value)}')
        else:
            lines.append(f'{label}: {_number(value)}')
    return '\n'.join(lines) or 'Not recorded.'


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
