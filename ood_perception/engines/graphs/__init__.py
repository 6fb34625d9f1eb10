# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs rewritten before they are compiled."""
