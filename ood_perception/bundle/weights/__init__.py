# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that a bundle does not carry: where they come from, and completing it."""
