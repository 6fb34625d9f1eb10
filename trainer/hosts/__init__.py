# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Convolutional closed-set networks that RPL can sit on, beside the ViT segmenter."""
