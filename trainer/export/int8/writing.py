# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Put measured precisions into a bundle: quantisation facts, manifest entry, card section."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import MANIFEST_NAME, PrecisionSpec
from ood_perception.bundle.store import Bundle, file_spec, write_manifest
from ood_perception.engines.int8 import (
    QUANTIZATION_NAME,
    Quantization,
    write_quantization,
)
from ood_perception.engines.plan import LARGEST_LOSS
from ood_perception.engines.trial import remember
from ood_perception.files import make_folder, sha256_of
from ood_perception.reports.html import render

from ..pack import files_of_bundle
from .cost import Cost, CostBench

CARD_TITLE = '\n## Precisions\n'
"""What templates/precisions.md.j2 begins with."""


def precision_spec(cost: Cost, bench: CostBench, file: str, what: dict[str, Any]) -> PrecisionSpec:
    """Return the manifest's entry: bounds at three times what was measured, never very tight."""
    return PrecisionSpec(
        average_precision_loss=round(cost.loss, 4),
        interval=(round(cost.interval[0], 4), round(cost.interval[1], 4)),
        surprisal_tolerance=round(max(0.25, 3 * cost.difference_999), 3),
        label_agreement=round(min(0.99, 1 - 3 * (1 - cost.labels)), 4),
        file=file,
        measured={
            **what,
            'images': len(bench.images),
            'data': bench.data,
            'runtime': 'openvino',
            'float32_average_precision': round(bench.float_precision, 4),
            'relative_time_of_backbone': round(cost.relative_time, 3),
        },
    )


def write_precisions(
    bundle: Bundle, path: Path, facts: Quantization, precisions: dict[str, PrecisionSpec]
) -> None:
    """Write the bundle again with its facts, manifest entry and card section; whole or not."""
    section = render('precisions.md.j2', precisions=precisions, facts=facts, most=LARGEST_LOSS)

    def fill(folder: Path) -> None:
        for name in (*bundle.manifest.files, MANIFEST_NAME):
            if (bundle.root / name).is_file():
                shutil.copyfile(bundle.root / name, folder / name)
        write_quantization(folder / QUANTIZATION_NAME, facts)
        card = folder / 'MODEL_CARD.md'
        if card.is_file():
            text = card.read_text(encoding='utf-8').split(CARD_TITLE)[0].rstrip() + '\n'
            card.write_text(text + section, encoding='utf-8')
        (folder / MANIFEST_NAME).unlink()
        files = {file.name: file_spec(file) for file in sorted(folder.iterdir())}
        manifest = dataclasses.replace(bundle.manifest, precisions=precisions, files=files)
        write_manifest(folder, manifest)

    make_folder(path, fill, files_of_bundle(path))
    remember(sha256_of(path / MANIFEST_NAME))  # as pack_bundle does
