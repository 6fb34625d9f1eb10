# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""BatchNorm over the batch of all processes (torch's own SyncBatchNorm is for GPUs alone)."""

from __future__ import annotations

import torch
from torch import nn

from ..distributed import summed, world


class SharedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm2d whose statistics, while it trains, are those of all processes' images."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise float (B, C, H, W); B may be 0 here, not in all processes."""
        if not self.training or world() == 1:
            return super().forward(values)
        exact = values.float()
        pixels = float(exact[:, 0].numel())
        count = float(summed(torch.tensor(pixels, dtype=torch.float64)))
        mean = summed(exact.sum((0, 2, 3))) / count
        centred = exact - mean[:, None, None]
        variance = summed(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(values.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def share_statistics(network: nn.Module) -> None:
    """Let a network's BatchNorms be SharedBatchNorms; what they hold stays."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
