# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Names that somebody wrote for parameters: unknown ones, and the ones that are meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ood_perception.parameters.table import BY_NAME

# What rclpy and the launch files of ROS set on every node
_OF_ROS = ('use_sim_time', 'start_type_description_service')
_OF_ROS_PREFIX = 'qos_overrides.'


# Names that share this much (difflib's ratio) with one of ours are taken for misspelt.
_MISSPELT = 0.8


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return the names that no parameter of the node has, each with the nearest that there is."""
    unknown = []
    for name in filter(_unknown, names):
        near = difflib.get_close_matches(name, BY_NAME, 1) or [
            known for known in BY_NAME if known.rpartition('.')[2] == name.rpartition('.')[2]
        ]
        unknown.append(f'{name} (did you mean {near[0]}?)' if near else name)
    return unknown


def misspelt_names(names: Iterable[str]) -> list[str]:
    """
    Return the unknown names that can only be meant for this node, each with the one meant.

    They nearly are a name of ours, or are the last part of one ('mode' for 'roi.mode').
    """
    misspelt = []
    for name in filter(_unknown, names):
        near = difflib.get_close_matches(name, BY_NAME, 1, _MISSPELT) or [
            known for known in BY_NAME if known.rpartition('.')[2] == name
        ]
        misspelt += [f'{name} (did you mean {near[0]}?)'] if near else []
    return misspelt


def _unknown(name: str) -> bool:
    return not (name in BY_NAME or name in _OF_ROS or name.startswith(_OF_ROS_PREFIX))
