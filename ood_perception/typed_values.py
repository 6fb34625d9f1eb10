# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Plain values, as YAML and JSON files hold them, to dataclasses: typed and strict."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError, OodPerceptionError


def build(
    kind: Any, values: Any, place: str, error: type[OodPerceptionError] = ConfigError
) -> Any:
    """
    Make a dataclass of the values of a YAML or JSON file, nested dataclasses included.

    A value must have its field's type: whole numbers pass as floats, lists as tuples, texts as
    paths, and what is typed Any as it is. place: named in errors. Raises `error` for an unknown
    key (with those that are known, and the nearest), a missing one and a value of another type;
    a ConfigError of the dataclass itself becomes one that names the place.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    keys = f'known keys are {", ".join(known)}'
    if not isinstance(values, Mapping):
        raise error(f'{place}: expected keys and values, found {values!r}; {keys}')
    unknown = [key for key in values if key not in known]
    missing = [
        name
        for name, field in known.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if unknown or missing:
        what = f'unknown {unknown}' if unknown else f'lacks {missing}'
        near = difflib.get_close_matches(str(unknown[0])[:99], known, 1) if unknown else []
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise error(f'{place}: {what}; {keys}{hint}')
    hints = _hints(kind)
    checked = {k: _typed(hints[k], v, f'{place}: {k}', error) for k, v in values.items()}
    try:
        return kind(**checked)
    except ConfigError as reason:
        raise error(f'{place}: {reason}') from reason


_hints = functools.cache(typing.get_type_hints)
_TYPE_NAMES = {
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    bool: 'true or false',
    Path: 'a path',
}


def _typed(kind: Any, value: Any, place: str, error: type[OodPerceptionError]) -> Any:
    """Return a value of a type, see build."""
    if dataclasses.is_dataclass(kind):
        return build(kind, value, place, error)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return None if value is None else _typed(arguments[0], value, place, error)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise error(f'{place} is {value!r}, expected a list')
        many = arguments[-1] is Ellipsis
        if not many and len(value) != len(arguments):
            raise error(f'{place} is {value!r}, expected {len(arguments)} values')
        kinds = arguments[:1] * len(value) if many else arguments
        return tuple(
            _typed(one, item, f'{place} {number}', error)
            for number, (one, item) in enumerate(zip(kinds, value, strict=True), 1)
        )
    if typing.get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise error(f'{place} is {value!r}, expected keys and values')
        return {k: _typed(arguments[1], v, f'{place}: {k}', error) for k, v in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and type(value) is str:
        return Path(value)
    if kind is Any:
        return value
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise error(f'{place} is {value!r}, expected {_TYPE_NAMES.get(kind, kind)}')
    return value
