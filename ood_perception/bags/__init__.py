# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded bags through the node's own pipeline: read, replay, write the results, compare."""
