# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Exact search of the k nearest references by matrix products, piece by piece, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import ConfigError, DataError

from ..upsampling import frozen, half_rounded

PIECE = 16_384  # references at a time: with a frame's 1296 tokens, 85 MB of products


def smallest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k smallest of the last axis (..., k), ascending."""
    return torch.topk(values, k, dim=-1, largest=False, sorted=True).values


def nearest_squared(
    queries: torch.Tensor, references: npt.NDArray[np.floating], k: int
) -> torch.Tensor:
    """
    Return the k smallest squared distances of each query, float32 (Q, k) >= 0, ascending.

    queries: float (Q, D). references: float (N, D), read piece by piece: memory is Q x PIECE
    products, whatever N. DataError for fewer than k references.
    """
    if len(references) < k:
        raise DataError(f'{len(references)} references have no {k} nearest: give more')
    queries = queries.float()
    found = queries.new_empty((len(queries), 0))
    for start in range(0, len(references), PIECE):
        piece = torch.as_tensor(np.asarray(references[start : start + PIECE])).float()
        if start == 0:  # distances do not change, but differences stay small
            center = piece.mean(0)
            queries = queries - center
        piece = piece - center
        products = torch.addmm((piece * piece).sum(1), queries, piece.T, alpha=-2)
        found = torch.cat([found, smallest(products, min(k, len(piece)))], 1)
        found = smallest(found, min(k, found.shape[1]))
    return torch.relu(found + (queries**2).sum(1, keepdim=True))


def head_slices(width: int, heads: int) -> list[slice]:
    """Return the columns of each attention head; ConfigError where they do not fit."""
    if heads < 1 or width % heads:
        raise ConfigError(f'{width} columns cannot be split into {heads} attention heads')
    size = width // heads
    return [slice(h * size, (h + 1) * size) for h in range(heads)]


def mean_distances(
    queries: npt.NDArray[np.floating],
    references: npt.NDArray[np.floating],
    k: int,
    heads: int = 1,
    others: bool = False,
) -> npt.NDArray[np.float32]:
    """
    Return float32 (Q,): mean distance to the k nearest references, averaged over attention heads.

    queries: float (Q, D). references: float (N, D). heads: parts of the width that are searched
    apart, 1 = the whole. others: the queries are among the references: the nearest one, itself,
    is left out.
    """
    total = np.zeros(len(queries), np.float32)
    for columns in head_slices(queries.shape[1], heads):
        for start in range(0, len(queries), 2048):
            part = np.ascontiguousarray(queries[start : start + 2048, columns])
            squared = nearest_squared(torch.from_numpy(part), references[:, columns], k + others)
            distances = squared[:, int(others) :].sqrt().mean(1)
            total[start : start + 2048] += distances.numpy() / heads
    return total


class NearestReferences(nn.Module):
    """
    Mean distance to the k nearest references, in operators of every runtime.

    references: float (N, D). heads: see mean_distances. half: round the centred references to
    float16, so that a file may hold them so; the arithmetic is float32 all the same.
    |t - r|^2 = |t|^2 - 2 t.r + |r|^2 after the mean reference is taken off both.
    """

    center: torch.Tensor

    def __init__(
        self, references: torch.Tensor, k: int, heads: int = 1, half: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= k <= len(references):
            raise ConfigError(f'{k} nearest of {len(references)} references: choose 1 to all')
        self.k = k
        self.slices = head_slices(references.shape[1], heads)
        self.register_buffer('center', references.float().mean(0))
        centered = references.float() - self.center
        if half:
            centered = half_rounded(centered)
        pieces = centered.split(PIECE)
        self.matrices = nn.ParameterList(
            [frozen(-2 * piece[:, s].T) for s in self.slices for piece in pieces]
        )
        self.offsets = nn.ParameterList(
            [frozen((piece[:, s] ** 2).sum(1)) for s in self.slices for piece in pieces]
        )
        self.effective = centered + self.center

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (B, gh, gw) >= 0 from tokens (B, gh, gw, D)."""
        rows, columns, width = (int(length) for length in tokens.shape[1:])
        flat = (tokens - self.center).reshape(-1, rows * columns, width)
        count = len(self.matrices) // len(self.slices)
        total = None
        for head, part in enumerate(self.slices):
            own = flat[..., part] if len(self.slices) > 1 else flat
            found = [
                smallest(own @ matrix + offset, min(self.k, len(offset)))
                for matrix, offset in list(zip(self.matrices, self.offsets, strict=True))[
                    head * count : (head + 1) * count
                ]
            ]
            least = found[0] if count == 1 else smallest(torch.cat(found, 2), self.k)
            norms = (own * own).sum(2, keepdim=True)
            mean = torch.sqrt(torch.relu(least + norms)).mean(2)
            total = mean if total is None else total + mean
        return (total / len(self.slices)).reshape(-1, rows, columns)
