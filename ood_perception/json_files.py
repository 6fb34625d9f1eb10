# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
JSON as every reader takes it: no NaN and no Infinity, which are no JSON; null stands there.

read_json is for files of others: what a parser may do with them is bounded before it begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ood_perception.files import make_file

MOST_BYTES = 4 << 20
MOST_LEVELS = 32
_LARGEST = 1 << 63


def json_text(
    values: Any,
    *,
    indent: int | None = 1,
    sort_keys: bool = False,
    default: Callable[[Any], Any] | None = None,
    ascii_only: bool = False,
) -> str:
    """
    Return strict JSON of plain values; numbers that are not finite become null.

    default: makes plain values of others, such as paths; None = they are a TypeError.
    ascii_only: write other characters as escapes, for a terminal.
    """
    return json.dumps(
        finite(values),
        indent=indent,
        sort_keys=sort_keys,
        default=default,
        ensure_ascii=ascii_only,
        allow_nan=False,
    )


def finite(values: Any) -> Any:
    """Return the same plain values with None for every number that is not finite."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> Any:
    """
    Return the plain values of a JSON file that anybody may have written.

    Raises OSError where it cannot be read, ValueError for more than 4 MiB and as parse_json.
    """
    return parse_json(read_bounded(path))


def read_bounded(path: Path) -> bytes:
    """Return a regular file's bytes, 4 MiB and one at most; ValueError for another file."""
    if path.exists() and not path.is_file():
        raise ValueError('it is no regular file')
    with path.open('rb') as file:
        return file.read(MOST_BYTES + 1)


def parse_json(content: bytes) -> Any:
    """
    Return the plain values of a JSON text in UTF-8, at most 4 MiB.

    Raises ValueError for broken JSON, a key that stands twice, more than 32 levels, numbers that
    are not finite or take more than 64 bits, and texts with half a surrogate pair.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f'it has more than {MOST_BYTES >> 20} MiB')
    try:
        values = json.loads(
            content.decode('utf-8'), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError('it is nested too deeply') from None
    _check(values, 1)
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError('one of its keys stands twice')
    return values


def _no_number(text: str) -> Any:
    raise ValueError(f'{text} is no number of JSON')


def _check(values: Any, level: int) -> None:
    """Raise ValueError for what plain values may not be, see parse_json."""
    if level > MOST_LEVELS:
        raise ValueError(f'it is nested more than {MOST_LEVELS} levels deep')
    if isinstance(values, str):
        values.encode('utf-8')  # UnicodeEncodeError is a ValueError
    elif isinstance(values, (list, dict)):
        for key in values if isinstance(values, dict) else ():
            _check(key, level)
        for value in values.values() if isinstance(values, dict) else values:
            _check(value, level + 1)
    elif isinstance(values, float) and not math.isfinite(values):
        raise ValueError('a number in it is too large')
    elif isinstance(values, int) and not -_LARGEST <= values < _LARGEST:
        raise ValueError('a whole number in it takes more than 64 bits')


def write_json(path: Path, values: Any, *, indent: int = 1, sort_keys: bool = False) -> None:
    """Write strict JSON, whole or not at all; OSError where that fails."""
    text = json_text(values, indent=indent, sort_keys=sort_keys) + '\n'

    def fill(file: Path) -> None:
        file.write_text(text, encoding='utf-8')

    make_file(path, fill)
