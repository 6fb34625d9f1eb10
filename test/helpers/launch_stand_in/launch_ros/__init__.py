# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The one class of the ROS 2 package `launch_ros` that our launch files use, for tests only."""
