# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a parameter of the node is: type, default, range, meaning, dynamic or not.

Who reads a parameter file without ROS needs these, too: only `descriptor` imports ROS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ood_perception.errors import ConfigError

Value = str | int | float | bool | tuple[str, ...]
# An empty list has no type in a ROS parameter file, so one empty string stands for "none".
NO_STRINGS = ('',)


@dataclass(frozen=True)
class Spec:
    """
    One parameter. Its type is its default's.

    dynamic: may change while the node is configured.
    choices: the allowed strings, () = any. low, high: inclusive bounds of a number, as tools show
    them. check: raises ConfigError for what bounds and choices cannot say.
    """

    name: str
    default: Value
    description: str
    dynamic: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    check: Callable[[str, Any], None] | None = None

    def descriptor(self) -> Any:
        """Return the ParameterDescriptor for this parameter."""
        from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

        kind = 'dynamic' if self.dynamic else 'fixed while configured'
        descriptor = ParameterDescriptor(name=self.name, type=_type_of(self.default))
        descriptor.description = f'{self.description} ({kind})'
        if self.choices:
            descriptor.additional_constraints = f'one of: {", ".join(self.choices)}'
        low, high = self.low, self.high
        if low is not None and high is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif low is not None and high is not None:
            span = IntegerRange(from_value=int(low), to_value=int(high), step=1)
            descriptor.integer_range = [span]
        return descriptor


def positive(name: str, value: float) -> None:
    """Raise ConfigError unless the value is above 0 and finite."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ConfigError(f'{name} is {value:g}, it must be above 0')


def _type_of(default: Value) -> int:
    from rclpy.parameter import Parameter

    kinds: dict[type, Any] = {
        bool: Parameter.Type.BOOL,
        int: Parameter.Type.INTEGER,
        float: Parameter.Type.DOUBLE,
        str: Parameter.Type.STRING,
        tuple: Parameter.Type.STRING_ARRAY,
    }
    return int(kinds[type(default)].value)
