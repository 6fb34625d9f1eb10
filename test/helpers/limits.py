# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How long tests wait for what should come: bounds for what hangs, never for what is slow."""

HANGS = 900.0  # seconds for another process; a busy machine is many times slower than a quiet one
WAIT = 180.0  # seconds for a message or a state
