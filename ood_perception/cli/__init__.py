# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line programs of the runtime."""
