# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The main job in one command: frames in, images and a page out."""
