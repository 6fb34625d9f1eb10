# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of a frozen convolutional trunk for a list of pictures, kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ood_perception.errors import ConfigError, DataError

from ...artifacts import Artifact, digest
from ...backbones.mobilenet import ORIGIN, MobileNetV2
from ...data.images import PictureList, content_sha256
from ...features import FeatureSet, View, network_picture
from ...nets.deeplab import FINE, TRUNK

LABELS = 'labels'


def host_features(
    pictures: PictureList, trunk: MobileNetV2, view: View, folder: Path, progress: bool = True
) -> FeatureSet:
    """
    Return the trunk's two maps and the labels of a list, as cached tokens are.

    folder: of all such maps; each list and view has one of its own in it. Its `patch` is the
    output stride, its grid the trunk's; the fine map has a finer one.
    Raises ConfigError for a size that is no multiple of the output stride.
    """
    stride = trunk.output_stride
    if view.size[0] % stride or view.size[1] % stride:
        raise ConfigError(f'size {view.size} is no multiple of the output stride {stride}')
    if not len(pictures):
        raise DataError('the picture list is empty: there is nothing to extract')
    settings = [list(view.size), view.policy, list(view.anchors), view.precision, stride]
    key = digest([content_sha256(pictures), ORIGIN['sha256'], *settings])
    artifact = Artifact(folder, 'maps', key)
    place = artifact.make(lambda at: _write(at, pictures, trunk, view, progress)).folder
    arrays = {
        name: np.load(place / f'{name}.npy', mmap_mode='r') for name in (FINE, TRUNK, LABELS)
    }
    labels = arrays.pop(LABELS)
    return FeatureSet(pictures.names, arrays, labels, *view.size, stride, key)


def _write(
    target: Path, pictures: PictureList, trunk: MobileNetV2, view: View, progress: bool
) -> None:
    """Fill the three arrays picture by picture."""
    arrays: dict[str, np.ndarray] = {}
    for index in tqdm(range(len(pictures)), unit='picture', disable=not progress):
        image, labels = network_picture(pictures, index, view)
        enabled = view.precision == 'bf16'
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            fine, deep = trunk(torch.from_numpy(image[None]))
        values = {FINE: fine[0].half().numpy(), TRUNK: deep[0].half().numpy(), LABELS: labels}
        for name, value in values.items():
            if name not in arrays:
                path, shape = target / f'{name}.npy', (len(pictures), *value.shape)
                arrays[name] = np.lib.format.open_memmap(path, 'w+', value.dtype, shape)
            arrays[name][index] = value
    for array in arrays.values():
        array.flush()
