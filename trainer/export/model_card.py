# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""MODEL_CARD.md: what a bundle is, derives from and is worth, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ood_perception.bundle.manifest import Manifest

_MEANING = """\
`surprisal` = -log10 of a calibrated p-value: the share of in-distribution pixels, held out from
all fitting, that look at least as strange. `score` = 1 - 10^-surprisal. A pixel of a chosen class
inside the region of interest is flagged at most at the rate that was set, as far as the pictures
resemble those of the calibration. Known classes that are not chosen are flagged by design."""

_LIMITS = """\
* A camera, country, weather or light that the pictures of the calibration do not hold raises the
  share of false alarms; calibrate on your own pictures before you rely on a rate.
* Beyond the last held-out pixel the surprisal goes on log-linearly: it ranks, it promises nothing.
* Not a safety function: no claim is made for collision avoidance."""


def model_card(manifest: Manifest, data: str, metrics: Sequence[Mapping[str, Any]] = ()) -> str:
    """
    Return the card as Markdown.

    data: a sentence or more on the pictures that the head was fitted on, and their licence.
    metrics: rows of one table, all with the keys of the first.
    """
    sections = [
        (manifest.name, _summary(manifest)),
        ('What the score means', _MEANING),
        ('Data', data),
        ('Calibration', _facts(manifest.calibration)),
        ('Metrics', _table(metrics) if metrics else 'Not measured when the bundle was made.'),
        ('Licences and notices', '\n'.join(f'* {line}' for line in manifest.licences) or 'None.'),
        ('Limits', _LIMITS),
        ('Provenance', _facts(manifest.provenance)),
    ]
    parts = [f'## {title}\n\n{content}\n' for title, content in sections]
    return '\n'.join(parts)[1:]  # the first one is the title


def _summary(manifest: Manifest) -> str:
    head, size = manifest.heads[0], manifest.input
    unmodelled = [spec.name for spec in manifest.classes if not spec.modelled]
    steps = manifest.provenance.get('finetuned', {}).get('steps')
    tuned = f'fine-tuned for {steps} steps, its weights are in this bundle' if steps else 'frozen'
    lines = [
        f'* Backbone: {manifest.provenance.get("backbone", "see provenance")}, {tuned}.',
        f'* Input: {size.width} x {size.height} RGB, geometry policy {size.policy}, patch '
        f'{size.patch}.',
        f'* Head: {head.name}, upsampling x{head.upsampling}, selection {head.selection}, '
        f'calibration {head.calibration}.',
        f'* Classes: {", ".join(spec.name for spec in manifest.classes)}.',
        f'* Classes whose score the head holds: {", ".join(head.compiled_classes)}.',
        f'* Normal unless told otherwise: {", ".join(manifest.in_distribution)}.',
    ]
    if unmodelled:
        lines.append(f'* Without a model of their own (too few patches): {", ".join(unmodelled)}.')
    return '\n'.join(lines)


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


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ['---'] * len(names)] + [
        [_number(row[name]) for name in names] for row in rows
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
