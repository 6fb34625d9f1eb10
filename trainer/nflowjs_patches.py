# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Draw patches of an NFlowJS training's flows into one picture.

    trainer nflowjs-patches out/train/road_nflowjs --out out/patches.png

Above those of the flow as it was pre-trained, below those after the joint training; in each row
the sides grow from 16 pixels on. Both rows start from the same random numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ood_perception.bundle.cache import make_file
from ood_perception.errors import DataError

from .flow_training import seeded_torch
from .flows import Flow, load_flow
from .heads.nflowjs_stages import FLOW_FILE

SIDES = (16, 24, 40, 72, 104)
GAP = 4


@torch.no_grad()
def patch_row(flow: Flow, seed: int, repeats: int) -> npt.NDArray[np.uint8]:
    """Return one row of square patches, `repeats` of each side, uint8 (h, w, 3) RGB on white."""
    parts = []
    with seeded_torch(seed):
        for side in SIDES:
            for patch in flow.sample(repeats, side, side):
                picture = patch.permute(1, 2, 0).round().numpy().astype(np.uint8)
                below = (0, SIDES[-1] - side + GAP), (0, GAP), (0, 0)
                parts.append(np.pad(picture, below, constant_values=255))
    return np.concatenate(parts, axis=1)


def main(arguments: Sequence[str]) -> None:
    """Run `trainer nflowjs-patches`."""
    parser = argparse.ArgumentParser(
        'trainer nflowjs-patches',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', type=Path, help="a training's artefacts")
    parser.add_argument('--out', type=Path, default=Path('out/patches.png'), help='%(default)s')
    parser.add_argument('--repeats', type=int, default=4, help='patches of each size; %(default)s')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    files = [options.folder / part / FLOW_FILE for part in ('flow', 'fit')]
    found = [path for path in files if path.is_file()]
    if not found:
        raise DataError(f'{options.folder} holds no flow: give the --out folder of a training')
    rows = [patch_row(load_flow(path), options.seed, options.repeats) for path in found]
    picture = np.concatenate(rows)[..., ::-1]
    encoded = cv2.imencode('.png', picture)[1].tobytes()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    make_file(options.out, lambda partial: partial.write_bytes(encoded) and None)
    print(f'patches: {options.out}')
