# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics and reports that a robot can compute without torch."""
