# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of parameters on an rclpy node: declared, read and described."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from ood_perception.errors import ConfigError
from ood_perception.parameters.table import (
    BY_NAME,
    PARAMETERS,
    Spec,
    Value,
    check_values,
    unknown_names,
)


def undeclared(node: Any) -> str:
    """Return what is to be said of overrides (params file or -p) that the node has no use for."""
    # rclpy keeps them here and offers no list of its own
    names = unknown_names(getattr(node, '_parameter_overrides', {}))
    return f'no such parameters, ignored: {", ".join(names)}' if names else ''


def declare(node: Any) -> None:
    """Declare every parameter on an rclpy node; ConfigError for an unusable override."""
    for spec in PARAMETERS:
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        try:
            node.declare_parameter(spec.name, default, descriptor(spec))
        except Exception as error:  # rclpy raises several unrelated classes here
            raise ConfigError(f'parameter {spec.name} (params file or -p): {error}') from error
    check_values(values_of(node), known_classes=())


def values_of(node: Any) -> dict[str, Value]:
    """Return the current values by name; string arrays as tuples."""
    return {spec.name: _plain(node.get_parameter(spec.name).value) for spec in PARAMETERS}


def _plain(value: Any) -> Value:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def changed_values(parameters: Sequence[Any]) -> dict[str, Value]:
    """Return those of rclpy's Parameters that are ours, as values by name."""
    return {p.name: _plain(p.value) for p in parameters if p.name in BY_NAME}


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
