# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Many recordings as tasks: on this machine or a Ray cluster, one ledger, one report."""
