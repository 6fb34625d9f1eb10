# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the camera is and looks: bearings and distances on a plane."""
