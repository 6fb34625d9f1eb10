# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters without ROS: names, ranges, files, and what becomes of them."""
