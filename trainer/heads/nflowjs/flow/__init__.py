# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Normalising flows that make images of any size, for synthetic negatives (NFlowJS).

Own code, because none of the libraries fits: zuko knows vectors alone; normflows and FrEIA fix the
image's size when a flow is built and know neither a bounded log-scale nor noise between units.
"""

from __future__ import annotations

from .build import KINDS, FlowConfig, build_flow, load_flow, save_flow
from .flow import STRIDE, Flow

__all__ = ['KINDS', 'STRIDE', 'Flow', 'FlowConfig', 'build_flow', 'load_flow', 'save_flow']
