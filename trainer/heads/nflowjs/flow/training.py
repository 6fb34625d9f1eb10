# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pre-training of a flow by maximum likelihood on crops of images without anomalies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ....artifacts import Artifact
from ....augment.on_the_fly import Crops
from ....training.loop import Trained, TrainingRun
from . import Flow, FlowConfig, build_flow

LOOK_CROPS = 64
PATCH_SIDES, PATCH_GAP = (16, 24, 40, 72, 104), 4  # of the image of patches


@contextmanager
def seeded_torch(*parts: int) -> Iterator[None]:
    """Let torch's randomness follow from whole numbers inside, and be as it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng(parts).integers(1 << 62)))
        yield


def planes(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """Return float32 (B, 3, h, w) of uint8 (B, h, w, 3), values unchanged."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


class FlowRun(TrainingRun):
    """A run of a flow that keeps the fewest bits per dimension on crops of `select`."""

    name = 'flow'

    def __init__(self, train: Crops, select: Crops, config: FlowConfig) -> None:
        self.crops, self.select, self.config = train, select, config
        self.flow = build_flow(config)
        optimizer = torch.optim.Adamax(self.flow.parameters(), config.learning_rate)
        super().__init__(self.flow, len(train.images), config, optimizer)

    def fit(self, artifact: Artifact | None = None) -> Trained:
        """Train, see TrainingRun.fit; without steps the flow is as it was built."""
        if not self.config.steps:
            return Trained(self.flow.eval(), 0, ())
        rng = np.random.default_rng((self.config.seed, LOOK_CROPS))
        places = [i % len(self.select.images) for i in range(LOOK_CROPS)]
        self.held_out = planes(np.stack([self.select.draw(i, rng)[0] for i in places]))
        return super().fit(artifact)

    @torch.no_grad()
    def look(self) -> float:
        """Return minus the mean bits per dimension of the held-out crops, of the same noise."""
        self.flow.eval()
        with seeded_torch(self.config.seed):
            bits = [self.flow.bits_per_dimension(part) for part in self.held_out.split(16)]
            return -float(torch.cat(bits).mean())

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the mean bits per dimension of fresh crops."""
        rng = np.random.default_rng((self.config.seed, self.step, 1))
        drawn = [self.crops.draw(i, rng)[0] for i in indices for _ in range(self.config.crops)]
        with seeded_torch(self.config.seed, self.step):
            return self.flow.bits_per_dimension(planes(np.stack(drawn))).mean()


@torch.no_grad()
def patch_row(flow: Flow, seed: int = 0, repeats: int = 4) -> npt.NDArray[np.uint8]:
    """Return one row of square patches, `repeats` of each side, uint8 (h, w, 3) RGB on white."""
    parts = []
    with seeded_torch(seed):
        for side in PATCH_SIDES:
            for patch in flow.sample(repeats, side, side):
                image = patch.permute(1, 2, 0).round().numpy().astype(np.uint8)
                below = (0, PATCH_SIDES[-1] - side + PATCH_GAP), (0, PATCH_GAP), (0, 0)
                parts.append(np.pad(image, below, constant_values=255))
    return np.concatenate(parts, axis=1)


def write_patches(path: Path, flow: Flow) -> None:
    """Write a row of patches as PNG, to look at what a flow makes; the same noise every time."""
    path.write_bytes(cv2.imencode('.png', patch_row(flow)[..., ::-1])[1].tobytes())
