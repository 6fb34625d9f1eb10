# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Quality of service: what we ask of a camera, what it offers, and what outputs offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from ood_perception.parameters.table import RELIABILITIES

AUTO, RELIABLE, BEST_EFFORT = RELIABILITIES
_UNKNOWN = '_NODE_NAME_UNKNOWN_'


def input_profile(reliability: str, depth: int = 1) -> QoSProfile:
    """Return the profile of an image subscription, 'reliable' or 'best_effort'."""
    policy = (
        ReliabilityPolicy.RELIABLE if reliability == RELIABLE else ReliabilityPolicy.BEST_EFFORT
    )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=policy,
        durability=DurabilityPolicy.VOLATILE,
    )


def output_profile(depth: int = 1) -> QoSProfile:
    """Return the profile of the outputs: reliable; depth: messages kept for slow listeners."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE
    )


def latched_profile() -> QoSProfile:
    """Return the profile of LabelInfo: reliable, transient local, depth 1."""
    profile = output_profile()
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def chosen_reliability(setting: str, publishers: Sequence[Any]) -> str:
    """
    Return 'reliable' or 'best_effort' for the parameter image_reliability.

    'auto': reliable when every discovered publisher offers it, since an unfragmented best-effort
    image does not survive the default transport; best effort otherwise, because a reliable
    subscription and a best-effort publisher never connect.
    publishers: TopicEndpointInfo of the image topic's publishers.
    """
    if setting != AUTO:
        return setting
    every = bool(publishers) and all(_offers_reliable(endpoint) for endpoint in publishers)
    return RELIABLE if every else BEST_EFFORT


def describe(publishers: Iterable[Any]) -> str:
    """Return a line like '/driver: reliable, volatile, type sensor_msgs/msg/Image'."""
    return '; '.join(_describe_one(endpoint) for endpoint in publishers)


def type_name(kind: Any) -> str:
    """Return the name of a message class as discovery has it, 'sensor_msgs/msg/Image'."""
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


def _offers_reliable(endpoint: Any) -> bool:
    return bool(endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE)


def _describe_one(endpoint: Any) -> str:
    profile = endpoint.qos_profile
    name = f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
    if _UNKNOWN in endpoint.node_name:  # discovery tells the topic before the node's name
        name = 'a publisher'
    return (
        f'{name}: {profile.reliability.name.lower()}, {profile.durability.name.lower()}, '
        f'type {endpoint.topic_type}'
    )
