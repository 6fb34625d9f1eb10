# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The page about metrics: its example runs, and every name in it exists."""

from __future__ import annotations

import importlib
import re

import numpy as np
from paths import ROOT

from ood_perception.metrics.pixel import (
    FPR95_VARIANTS,
    exact_metrics,
    scored_image,
)

PAGE = (ROOT / 'docs' / 'metrics.md').read_text(encoding='utf-8')


def test_the_example_runs_and_finds_the_objects():
    names: dict[str, object] = {}
    (example,) = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    exec(example, names)
    assert names['components']['mean_f1'] > 0.9
    assert names['interval'].low <= names['components']['mean_f1'] <= names['interval'].high
    assert set(names['others']) == set(FPR95_VARIANTS)


def test_every_function_that_the_page_names_exists():
    calls = re.findall(r'`([a-z_]+)\.([a-zA-Z_]+)\b', PAGE)
    calls = [(module, name) for module, name in calls if name not in ('py', 'Curve')]
    assert len(calls) > 20
    for module, name in calls:
        assert hasattr(importlib.import_module(f'ood_perception.metrics.{module}'), name)


def test_every_variant_of_fpr95_is_on_the_page():
    assert all(f'| `{variant}`' in PAGE for variant in FPR95_VARIANTS)


def test_equal_scores_give_what_the_page_says():
    labels = np.array([[1, 0, 0, 0]], np.uint8)
    got = exact_metrics([scored_image(np.ones((1, 4), np.float32), labels)])
    assert (got.average_precision, got.auroc, got.fpr95) == (0.25, 0.5, 1.0)
