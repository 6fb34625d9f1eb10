# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From surprisal to mask: calibration, region of interest, obstacles, output maps."""
