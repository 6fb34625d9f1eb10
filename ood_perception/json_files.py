# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""JSON as every reader takes it: no NaN and no Infinity, which are no JSON; null stands there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ood_perception.bundle.cache import make_file


def json_text(
    values: Any,
    *,
    indent: int | None = 1,
    sort_keys: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """
    Return strict JSON of plain values; numbers that are not finite become null.

    default: makes plain values of others, such as paths; None = they are a TypeError.
    """
    return json.dumps(
        finite(values),
        indent=indent,
        sort_keys=sort_keys,
        default=default,
        ensure_ascii=False,
        allow_nan=False,
    )


def finite(values: Any) -> Any:
    """Return the same plain values with None for every number that is not finite."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def write_json(path: Path, values: Any, *, indent: int = 1, sort_keys: bool = False) -> None:
    """Write strict JSON, whole or not at all; OSError where that fails."""
    text = json_text(values, indent=indent, sort_keys=sort_keys) + '\n'

    def fill(file: Path) -> None:
        file.write_text(text, encoding='utf-8')

    make_file(path, fill)
