# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters from a ROS parameter file, for programs that do not go through rcl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.errors import ConfigError
from ood_perception.parameters.sections import Section, Tell, read_sections, sections_for
from ood_perception.parameters.settings import DEFAULTS, strings

if TYPE_CHECKING:
    from ood_perception.parameters.spec import Spec

_EXPECTED = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: "a list of texts, such as ['a', 'b']",
}


def given_parameters(path: Path | None, tell: Tell, node: str) -> dict[str, Any]:
    """Return what --params and --node say, {} without --params; see read_parameters."""
    if path is None and node:
        raise ConfigError(f'--node {node} chooses among the sections of --params: give both')
    return read_parameters(path, tell, node) if path else {}


def read_parameters(path: Path, tell: Tell, node: str = '') -> dict[str, Any]:
    """
    Return the values of DEFAULTS that a ROS parameter file sets for one node.

    tell: takes, line by line, what is not used: other sections, names that the node does not have
    (with the nearest), parameters without effect here. node: see
    parameter_sections.sections_for. Raises ConfigError naming the file, what is wrong and the
    remedy.
    """
    from ood_perception.parameters.table import BY_NAME, unknown_names

    place = f'parameter file {path}'
    sections = read_sections(path, tell)
    chosen = sections_for(sections, node, place, BY_NAME.__contains__) if sections else []
    _tell_left_out(sections, chosen, place, tell)
    values: dict[str, Any] = {}
    for section in chosen:
        values.update(section.values)
    unknown = unknown_names(values)
    if unknown:
        tell(f'{place}: no such parameters, ignored: {", ".join(unknown)}')
    typed = {n: _checked(BY_NAME[n], v, place) for n, v in values.items() if n in BY_NAME}
    _tell_without_effect(typed, BY_NAME, place, tell)
    return {
        name: strings(value) if isinstance(value, tuple) else value
        for name, value in typed.items()
        if name in DEFAULTS
    }


def _tell_left_out(sections: list[Section], chosen: list[Section], place: str, tell: Tell) -> None:
    left_out = [s.pattern for s in sections if s not in chosen]
    if left_out:
        used = ', '.join(section.pattern for section in chosen)
        tell(f'{place}: read for {used}; not for {", ".join(left_out)} (--node chooses)')


def _tell_without_effect(
    values: Mapping[str, Any], specs: Mapping[str, Spec], place: str, tell: Tell
) -> None:
    """Name the parameters that change the node and nothing here."""
    names = [n for n, v in values.items() if n not in DEFAULTS and v != specs[n].default]
    if names:
        tell(f'{place}: of use to the node alone, without effect here: {", ".join(names)}')


def _checked(spec: Spec, value: Any, place: str) -> Any:
    """Return a value of the parameter's type; ConfigError for another or a wrong one."""
    from ood_perception.parameters.table import check_value

    kind = type(spec.default)
    found = _converted(kind, value)
    texts = isinstance(found, tuple) and all(isinstance(item, str) for item in found)
    if type(found) is not kind or (kind is tuple and not texts):
        raise ConfigError(f'{place}: {spec.name} is {value!r}, expected {_EXPECTED[kind]}')
    try:
        check_value(spec, found)
    except ConfigError as error:
        raise ConfigError(f'{place}: {error}') from error
    return found


def _converted(kind: type, value: Any) -> Any:
    """Return 2.0 as 2 and 2 as 2.0 where the other is meant, and a list as a tuple."""
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    return tuple(value) if kind is tuple and type(value) is list else value
