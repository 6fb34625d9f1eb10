# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What programs beside the node share: to start and stop, to wait for who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.qos import ReliabilityPolicy

from ood_perception.errors import ConfigError, exit_status

# The node meets the publisher's reliability within half a second of discovering it.
_MOST_SETTLING = 10.0
_SETTLED = 0.7
_POLL = 0.05


def run_program(ros_arguments: Sequence[str], work: Callable[[], int]) -> int:
    """Return the exit status of `work`, done while ROS runs; a user's mistake is one line, 1."""
    rclpy.init(args=list(ros_arguments))
    try:
        return exit_status('error', work)
    except ExternalShutdownException:
        return 1
    finally:
        rclpy.try_shutdown()


def wait_for_subscribers(node: Any, publishers: Iterable[Any], seconds: float) -> None:
    """Return when every publisher is matched; ConfigError for one that nobody subscribes to."""
    publishers = list(publishers)
    end = time.monotonic() + seconds
    for publisher in publishers:
        while not publisher.get_subscription_count():
            if time.monotonic() > end:
                raise ConfigError(
                    f'nobody subscribed to {publisher.topic_name} within {seconds:g} s: does the '
                    'node run in the same ROS_DOMAIN_ID, with this topic among its cameras, and '
                    'does somebody subscribe to an output of it (or lazy_subscription: false)?'
                )
            time.sleep(_POLL)
    end = time.monotonic() + _MOST_SETTLING
    while not all(_reliably_heard(node, p) for p in publishers) and time.monotonic() < end:
        time.sleep(_POLL)
    time.sleep(_SETTLED)


def _reliably_heard(node: Any, publisher: Any) -> bool:
    """Whether every subscriber asks for reliable delivery."""
    infos = node.get_subscriptions_info_by_topic(publisher.topic_name)
    policies = [info.qos_profile.reliability for info in infos]
    return bool(policies) and all(p == ReliabilityPolicy.RELIABLE for p in policies)


def flush(publishers: Iterable[Any]) -> None:
    """Wait until the last messages were acknowledged, at most five seconds for each publisher."""
    for publisher in publishers:
        publisher.wait_for_all_acked(Duration(seconds=5))
