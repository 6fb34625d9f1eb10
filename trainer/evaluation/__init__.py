# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that measure finished bundles on labelled sets, through the node's own pipeline."""
