# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT 10, 11 and TensorRT for RTX."""
