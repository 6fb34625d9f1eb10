# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The few classes of the ROS 2 package `launch` that our launch files use, for tests only.

`launch` has no wheel. Names and arguments are those of the real package; where that can be
imported the tests take it instead.
"""

from launch.context import LaunchContext, LaunchDescription

__all__ = ['LaunchContext', 'LaunchDescription']
