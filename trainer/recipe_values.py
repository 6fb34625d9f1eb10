# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YAML values to nested dataclasses: wrong keys, types and changes are refused by name."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.yaml_files import parse_yaml

_NAMES = {
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    bool: 'true or false',
    Path: 'a path',
}


def change_value(content: Any, change: str) -> None:
    """Apply one 'section.key=value' to the content of a recipe; ConfigError says what is wrong."""
    place, separator, text = change.partition('=')
    *sections, key = place.split('.')
    for section in sections:
        content = content.setdefault(section, {}) if isinstance(content, dict) else None
    if not separator or not isinstance(content, dict):
        raise ConfigError(f'cannot set {change!r}: give section.key=value, such as seed=1')
    content[key] = parse_yaml(text, f'cannot set {change!r}: the value')


def build(kind: Any, values: Any, place: str) -> Any:
    """Make a dataclass of a mapping, checking keys and types, nested dataclasses included."""
    if not isinstance(values, Mapping):
        raise ConfigError(f'{place}: expected keys and values, found {values!r}')
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [key for key in values if key not in known]
    required = [
        name
        for name, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if unknown or missing:
        what = f'unknown {unknown}' if unknown else f'lacks {missing}'
        raise ConfigError(f'{place}: {what}; known keys are {", ".join(known)}')
    hints = typing.get_type_hints(kind)
    checked = {k: _value(hints[k], v, f'{place}: {k}') for k, v in values.items()}
    try:
        return kind(**checked)
    except ConfigError as error:
        raise ConfigError(f'{place}: {error}') from error


def _value(kind: Any, value: Any, place: str) -> Any:
    """Return a value of a type, or raise ConfigError; whole numbers pass as floats."""
    if dataclasses.is_dataclass(kind):
        return build(kind, value, place)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, place)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{place} is {value!r}, expected a list')
        return tuple(_value(arguments[0], item, place) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and type(value) is str:
        return Path(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ConfigError(f'{place} is {value!r}, expected {_NAMES.get(kind, kind)}')
    return value
