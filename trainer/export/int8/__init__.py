# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle records for int8, and what it costs."""
