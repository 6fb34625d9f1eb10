# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of bundles: a process per case, measured in turns and put in proportion."""
