# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of parameters on an rclpy node: declared, read and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from ood_perception.errors import ConfigError
from ood_perception.parameters.files import misspelt_names, unknown_names
from ood_perception.parameters.table import (
    BY_NAME,
    PARAMETERS,
    Spec,
    Value,
    check_values,
    typed,
)


def _overrides(node: Any) -> dict[str, Any]:
    """
    Return what a params file or -p sets; rclpy keeps it here and offers no list of its own.

    An empty list has no type there and no value: it is left out, empty is every list's default.
    """
    found = getattr(node, '_parameter_overrides', {})
    return {name: one.value for name, one in found.items() if one.value is not None}


def undeclared(node: Any) -> str:
    """
    Return what is to be said of overrides (params file or -p) that the node has no use for.

    Raises ConfigError for names that are ours but for a slip: the node would run with defaults.
    """
    names = list(_overrides(node))
    if misspelt := misspelt_names(names):
        raise ConfigError(
            f'no such parameters (params file or -p): {", ".join(misspelt)}; parameters of other '
            'nodes belong below their own names in the file'
        )
    unknown = unknown_names(names)
    return f'no such parameters, ignored: {", ".join(unknown)}' if unknown else ''


def declare(node: Any) -> None:
    """Declare every parameter on an rclpy node; ConfigError for an unusable override."""
    given = _overrides(node)
    for spec in PARAMETERS:
        try:
            value = typed(spec, given.get(spec.name, spec.default))
            plain = list(value) if isinstance(value, tuple) else value
            node.declare_parameter(spec.name, plain, descriptor(spec), ignore_override=True)
        except Exception as error:  # rclpy raises several unrelated classes here
            raise ConfigError(f'parameter {spec.name} (params file or -p): {error}') from error
    check_values(values_of(node), known_classes=())


def as_declared(parameter: Any) -> Any:
    """Return an rclpy Parameter in the declared type, where it can be meant for that."""
    spec, value = BY_NAME.get(parameter.name), parameter.value
    if spec is None or type(value) not in (int, float, str):
        return parameter
    with suppress(ConfigError):  # rclpy refuses another type with its own message
        meant = typed(spec, value)
        return Parameter(spec.name, value=list(meant) if isinstance(meant, tuple) else meant)
    return parameter


def wrong_type(parameters: Sequence[Any]) -> str:
    """Return what is wrong with the first value of a type that is not its own, '' = none."""
    for parameter in parameters:
        spec = BY_NAME.get(parameter.name)
        if spec is None or parameter.value is None:
            continue
        try:
            typed(spec, parameter.value)
        except ConfigError as error:
            return str(error)
    return ''


def values_of(node: Any) -> dict[str, Value]:
    """Return the current values by name; string arrays as tuples."""
    return {spec.name: _plain(node.get_parameter(spec.name).value) for spec in PARAMETERS}


def _plain(value: Any) -> Value:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def changed_values(parameters: Sequence[Any]) -> dict[str, Value]:
    """Return those of rclpy's Parameters that are ours, as values by name."""
    return {p.name: _plain(p.value) for p in parameters if p.name in BY_NAME}


def describe_classes(node: Any, classes: Sequence[str], defaults: Mapping[str, str]) -> None:
    """
    Have ros2 param describe show the bundle's classes where parameters name some.

    defaults: by parameter, what its empty list [''] stands for.
    """
    for name, meant in defaults.items():
        shown = descriptor(BY_NAME[name])
        shown.additional_constraints = f"classes: {', '.join(classes)}; ['']: {meant}"
        node.set_descriptor(name, shown)


def descriptor(spec: Spec) -> ParameterDescriptor:
    """Return what ros2 param describe shows of a parameter."""
    kind = 'dynamic' if spec.dynamic else 'fixed while configured'
    of_type = Parameter.Type.from_parameter_value(spec.default)
    descriptor = ParameterDescriptor(name=spec.name, type=of_type.value)
    descriptor.description = f'{spec.description} ({kind})'
    if spec.choices:
        descriptor.additional_constraints = f'one of: {", ".join(spec.choices)}'
    low, high = spec.low, spec.high
    if low is not None and high is not None and isinstance(spec.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif low is not None and high is not None:
        span = IntegerRange(from_value=int(low), to_value=int(high), step=1)
        descriptor.integer_range = [span]
    return descriptor
