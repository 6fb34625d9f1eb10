# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Distances to etalons on the x f bilinear grid, without interpolating features.

For bilinear weights W (rows sum to 1): ||W t - c||^2 = |W t|^2 + W (|c|^2 - 2 t.c). The products
are taken once per patch and interpolated; |W t|^2 is a fixed combination of the Gram products of
neighbouring tokens. Only the minimum over the etalons must come after the interpolation: it does
not commute with it. The paper interpolates the features first (naive_squared_distances).

The four corners of every interpolation cell are gathered from the products (edges clamped, as
align_corners=False does); the f x f positions in a cell are f row phases times f column phases
with constant weights.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
import torch.nn.functional as functional
from torch import nn

from ood_perception.errors import ConfigError

from ..nets.patch_classifier import Classifier

# Measured (docs/benchmarks/head_speed.md): pieces of an etalon bank small enough to stay in the
# CPU's cache, met two by two so that the runtime fuses both interpolations and their minimum. A
# length that is no multiple of the vector width costs a fifth of the time.
PIECE = 128
VECTOR = 16


def phase_weights(factor: int) -> list[float]:
    """Return the weight of the right (lower) corner at each of the f places in a cell."""
    return [((place + factor // 2 + 0.5) / factor - 0.5) % 1.0 for place in range(factor)]


def upsample(maps: torch.Tensor, factor: int) -> torch.Tensor:
    """Return (B, gh*f, gw*f, C), the bilinear upsampling (half-pixel, edges clamped) of maps."""
    if factor == 1:
        return maps
    size = [int(length) * factor for length in maps.shape[1:3]]
    planes = functional.interpolate(
        maps.permute(0, 3, 1, 2), size=size, mode='bilinear', align_corners=False
    )
    return planes.permute(0, 2, 3, 1)


@lru_cache(maxsize=8)
def corner_indices(gh: int, gw: int, device: torch.device) -> tuple[tuple[torch.Tensor, ...], ...]:
    """
    Return, for row and column in {0, 1}, int64 ((gh+1)*(gw+1),): each cell's corner patch.

    Kept, so that one graph holds each list once and a GPU is not sent it again for every frame.
    """
    rows = [[min(max(y + side, 0), gh - 1) for y in range(-1, gh)] for side in (0, 1)]
    columns = [[min(max(x + side, 0), gw - 1) for x in range(-1, gw)] for side in (0, 1)]
    return tuple(
        tuple(torch.tensor([y * gw + x for y in ys for x in xs], device=device) for xs in columns)
        for ys in rows
    )


class CellGrid:
    """
    The interpolation cells of a patch grid: each lies between four neighbouring patch centres.

    gh, gw: patches. factor: f. There are (gh+1) x (gw+1) cells; at the edges corners coincide.
    """

    def __init__(self, gh: int, gw: int, factor: int, device: torch.device) -> None:
        self.gh, self.gw, self.factor = gh, gw, factor
        self.cells = (gh + 1) * (gw + 1)
        self._indices = corner_indices(gh, gw, device)

    def corner(self, values: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """Return (B, cells, ...): one corner of each cell, from values (B, gh*gw, ...)."""
        return values.index_select(1, self._indices[row][column])

    def corners(self, values: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return all four corners, as [row][column]."""
        return [[self.corner(values, row, column) for column in (0, 1)] for row in (0, 1)]

    def assemble(self, phases: torch.Tensor) -> torch.Tensor:
        """Return (B, gh*f, gw*f) from (B, f row phases, cells, f column phases)."""
        f = self.factor
        cells = phases.reshape(-1, f, self.gh + 1, self.gw + 1, f)
        image = cells.permute(0, 2, 1, 3, 4).reshape(-1, (self.gh + 1) * f, (self.gw + 1) * f)
        first = f - f // 2
        return image[:, first : first + self.gh * f, first : first + self.gw * f]


def squared_norms(flat: torch.Tensor, grid: CellGrid) -> torch.Tensor:
    """Return |W t|^2 as (B, f, cells, f) from flat tokens (B, gh*gw, D)."""
    f = grid.factor
    weights = torch.tensor(phase_weights(f), dtype=torch.float64)
    sides = torch.stack([1 - weights, weights])
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    found = grid.corners(flat)
    grams, shares = [], []
    for first, a in enumerate(corners):
        for b in corners[first:]:
            product = (found[a[0]][a[1]] * found[b[0]][b[1]]).sum(2)
            rows, columns = sides[a[0]] * sides[b[0]], sides[a[1]] * sides[b[1]]
            shares.append((1 if a == b else 2) * torch.outer(rows, columns).reshape(-1))
            grams.append(product)
    matrix = torch.stack(shares).to(flat)
    norms = torch.stack(grams, 2) @ matrix
    return norms.reshape(-1, grid.cells, f, f).permute(0, 2, 1, 3)


class NearestEtalon(nn.Module):
    """
    The least |c|^2 - 2 W t.c over a bank of etalons, interpolated, then minimised.

    etalons: (K, D), already centred like the tokens. The bank is cut into an even number of
    equal pieces of whole vectors (the last ones filled up with copies, which change no minimum).
    """

    def __init__(self, etalons: torch.Tensor, factor: int) -> None:
        super().__init__()
        self.factor = factor
        pairs = max(1, round(len(etalons) / (2 * PIECE)))
        size = VECTOR * -(-len(etalons) // (2 * pairs * VECTOR))
        filler = etalons[-1:].expand(2 * pairs * size - len(etalons), -1)
        pieces = torch.cat([etalons, filler]).split(size)
        self.matrices = nn.ParameterList([frozen(-2 * piece.T) for piece in pieces])
        self.offsets = nn.ParameterList([frozen((piece * piece).sum(1)) for piece in pieces])

    def forward(self, flat: torch.Tensor, grid: CellGrid) -> torch.Tensor:
        """Return (B, f, cells, f) from flat centred tokens (B, gh*gw, D)."""
        products = [
            flat @ matrix + offset
            for matrix, offset in zip(self.matrices, self.offsets, strict=True)
        ]
        weights = phase_weights(self.factor)
        columns = torch.tensor(weights, dtype=flat.dtype, device=flat.device).reshape(-1, 1)
        least = None
        for pair in zip(products[::2], products[1::2], strict=True):
            corners = [grid.corners(product) for product in pair]
            found = torch.stack([_row_minimum(corners, row, columns) for row in weights], 1)
            least = found if least is None else torch.minimum(least, found)
        return least

    def direct(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (B, gh, gw) without upsampling, from centred tokens (B, gh, gw, D)."""
        pieces = zip(self.matrices, self.offsets, strict=True)
        return torch.cat([tokens @ matrix + offset for matrix, offset in pieces], 3).amin(3)


def half_rounded(values: torch.Tensor) -> torch.Tensor:
    """Return values rounded to float16, in their own type; ConfigError beyond its range."""
    rounded = values.to(torch.float16).to(values.dtype)
    if not torch.isfinite(rounded).all():
        raise ConfigError('weights beyond the range of float16: store them with weights: f32')
    return rounded


def halve(network: nn.Module) -> None:
    """Round the weights of linear layers and convolutions to float16, in place; the rest stays."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.weight.copy_(half_rounded(layer.weight))


def frozen(values: torch.Tensor) -> nn.Parameter:
    """Return a copy as a parameter that nothing trains, stored row by row."""
    return nn.Parameter(values.detach().clone().contiguous(), requires_grad=False)


def _row_minimum(
    corners: list[list[list[torch.Tensor]]], row: float, columns: torch.Tensor
) -> torch.Tensor:
    """Return (B, cells, f): the minimum over the etalons of all pieces at one row phase."""
    best = None
    for upper, lower in corners:
        left = upper[0] * (1 - row) + lower[0] * row
        right = upper[1] * (1 - row) + lower[1] * row
        found = left.unsqueeze(2) + (right - left).unsqueeze(2) * columns
        best = found if best is None else torch.minimum(best, found)
    return best.amin(3)


class SquaredDistances(nn.Module):
    """
    Squared distances of interpolated tokens to the nearest etalon of each of several banks.

    banks: per class float (K_c, D) in the token space. factor: f >= 1.
    half: round the centred etalons to float16, so that a file may hold them so; the arithmetic
        is float32 all the same.
    scale: float (D,) > 0, the unit of each dimension, where it is not 1.
    The mean of all etalons is taken off tokens and etalons first: the weights sum to 1, so it is
    exact, and it keeps the large common part of the tokens out of the differences.
    """

    center: torch.Tensor
    rescale: torch.Tensor

    def __init__(
        self,
        banks: list[torch.Tensor],
        factor: int,
        half: bool = False,
        scale: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.factor, self.scaled = factor, scale is not None
        self.register_buffer('center', torch.cat(banks).mean(0))
        self.register_buffer('rescale', 1 / (torch.ones(1) if scale is None else scale))
        centered = [(bank - self.center) * self.rescale for bank in banks]
        if half:
            centered = [half_rounded(bank) for bank in centered]
        self.banks = nn.ModuleList([NearestEtalon(bank, factor) for bank in centered])

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return per bank (B, gh*f, gw*f) >= 0 from tokens (B, gh, gw, D)."""
        centered = tokens - self.center
        if self.scaled:
            centered = centered * self.rescale
        if self.factor == 1:
            norms = (centered * centered).sum(3)
            return [torch.relu(norms + bank.direct(centered)) for bank in self.banks]
        grid = CellGrid(int(tokens.shape[1]), int(tokens.shape[2]), self.factor, tokens.device)
        flat = centered.reshape(-1, grid.gh * grid.gw, tokens.shape[3])
        norms = squared_norms(flat, grid)
        return [torch.relu(grid.assemble(norms + bank(flat, grid))) for bank in self.banks]


class InterpolatedLinear(nn.Module):
    """
    The classifier on upsampled features: its first layer's products are interpolated instead.

    first, rest: the first linear layer and everything after it (activation, second layer).
    """

    def __init__(self, first: nn.Module, rest: nn.Module, factor: int) -> None:
        super().__init__()
        self.first, self.rest, self.factor = first, rest, factor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, gh*f, gw*f, C) from tokens (B, gh, gw, D)."""
        return self.rest(upsample(self.first(tokens), self.factor))


def naive_squared_distances(
    tokens: torch.Tensor, banks: list[torch.Tensor], factor: int
) -> list[torch.Tensor]:
    """
    Return what SquaredDistances returns, the paper's way: features are upsampled, then compared.

    tokens: (B, gh, gw, D). banks: per class (K_c, D). For tests and benchmarks.
    """
    features = upsample(tokens, factor)
    norms = (features * features).sum(3, keepdim=True)
    distances = [norms - 2 * features @ bank.T + (bank * bank).sum(1) for bank in banks]
    return [torch.relu(distance.amin(3)) for distance in distances]


class PatchLogits(nn.Module):
    """
    Upsampled logits of all known classes.

    layers: token names, in the order of forward's arguments. logits, factor, half: as for
    PixOODHead.
    """

    def __init__(self, classifier: Classifier, logits: str, factor: int, half: bool) -> None:
        super().__init__()
        self.layers = tuple(classifier.layers)
        self.classifier = served_classifier(classifier, logits, factor, half)
        self.factor = 1 if logits == 'features' else factor  # 'features' upsamples by itself

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, gh*f, gw*f, C) from float32 (B, gh, gw, D) per layer."""
        return upsample(self.classifier(torch.cat(tokens, 3)), self.factor)


def served_classifier(source: nn.Module, logits: str, factor: int, half: bool) -> nn.Module:
    """Return a copy with weights as stored; for 'features' it upsamples after its first layer."""
    classifier = copy.deepcopy(source).float()
    with torch.no_grad():
        for values in classifier.parameters() if half else ():
            values.copy_(half_rounded(values))
    if logits == 'patch':
        return classifier
    linear = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
    rest = nn.Identity() if len(linear) == 1 else nn.Sequential(nn.GELU(), linear[-1])
    tokens = torch.linspace(-2.0, 2.0, 3 * linear[0].in_features).reshape(1, 1, 3, -1)
    with torch.no_grad():
        if len(linear) > 2 or not torch.allclose(classifier(tokens), rest(linear[0](tokens))):
            raise ConfigError(
                "logits 'features' needs a linear or two-layer GELU classifier: use logits 'patch'"
            )
    return InterpolatedLinear(linear[0], rest, factor)
