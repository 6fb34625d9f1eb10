# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A small convolutional student of a large network's score."""
