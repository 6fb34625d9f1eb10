# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a frame costs before it is run: operations by part, and milliseconds from a measured rate.

A backbone's time is its products' operations over the rate that the machine reaches with them: its
best rate times a share that hardly depends on the size (docs/benchmarks/cost_model.md holds both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ood_perception.bench.graph_costs import PRODUCTS, NodeCost

PATCHES, PROJECTIONS, ATTENTION, MLP = 'patches', 'projections', 'attention', 'MLP'
DENSE, DEPTHWISE, MOVED = 'dense products', 'depthwise', 'moved'


@dataclass(frozen=True)
class Vit:
    """A plain ViT: pixels of a patch's side, channels, blocks, tokens beside the patches'."""

    patch: int = 14
    width: int = 384
    depth: int = 12
    extra: int = 1
    hidden: int = 4

    def operations(self, height: int, width: int, blocks: int = 0) -> dict[str, float]:
        """
        Return the operations of an image of height x width pixels by part, a multiply-add two.

        blocks: the first ones alone, 0 = all.
        """
        patches = (height // self.patch) * (width // self.patch)
        tokens, depth = patches + self.extra, blocks or self.depth
        square = tokens * self.width**2
        return {
            PATCHES: 2.0 * patches * 3 * self.patch**2 * self.width,
            PROJECTIONS: 2.0 * depth * 4 * square,
            ATTENTION: 2.0 * depth * 2 * tokens**2 * self.width,
            MLP: 2.0 * depth * 2 * self.hidden * square,
        }


def by_kind(costs: Sequence[NodeCost], bytes_each: int = 4) -> dict[str, float]:
    """
    Return what a graph does: operations of dense and depthwise products, bytes that others move.

    costs: of its nodes, see graph_costs. What follows a product (sums, activations) is counted as
    moved, though runtimes fuse most of it: an upper bound.
    """
    products = [node for node in costs if node.kind in PRODUCTS]
    return {
        DENSE: float(sum(node.operations for node in products if not node.depthwise)),
        DEPTHWISE: float(sum(node.operations for node in products if node.depthwise)),
        MOVED: float(bytes_each * sum(n.elements for n in costs if n.kind not in PRODUCTS)),
    }


def share_of_peak(operations: float, milliseconds: float, peak: float) -> float:
    """Return the share of a peak in GFLOP/s that so many operations in that time reach."""
    return operations / 1e6 / milliseconds / peak


def predicted_ms(operations: float, peak: float, share: float) -> float:
    """Return the milliseconds of operations at a share of a peak in GFLOP/s."""
    return operations / 1e6 / (peak * share)


def frame_ms(
    backbone_ms: float, images: int, head_ms: float, own_ms: Mapping[str, float]
) -> float:
    """
    Return the milliseconds of a frame.

    backbone_ms, head_ms: of one image. images: views of a frame, the whole one counts. own_ms: of
    what the node does itself, once a frame: decode, resize (of all views), postprocess, messages.
    """
    return images * (backbone_ms + head_ms) + sum(own_ms.values())
