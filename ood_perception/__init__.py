# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel-level out-of-distribution perception for ROS 2: the torch-free runtime."""

__version__ = '0.1.0'
