# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle adapted to a vehicle's own camera from clean frames: no labels, no torch."""
