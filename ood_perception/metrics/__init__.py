# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of scored pixels, components, boxes and seas; each from arrays alone."""
