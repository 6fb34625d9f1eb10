# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""int8 on the CPU: graphs derived on the machine from what the bundle records."""
