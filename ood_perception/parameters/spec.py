# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a parameter of the node is: type, default, range, meaning, dynamic or not.

Who reads a parameter file without ROS needs these, too.
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


def positive(name: str, value: float) -> None:
    """Raise ConfigError unless the value is above 0 and finite."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ConfigError(f'{name} is {value:g}, it must be above 0')
