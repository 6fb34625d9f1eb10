# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The image score from which a part is called defective, from images of flawless parts.

    trainer image-threshold BUNDLE --good FOLDER --rate 0.02

Images that the head was not fitted on: of its own training images, the last quarter of every
product (--last 0.25). Of new flawless parts at most the given share is then rejected, on average
over such images (split conformal prediction); nothing is stated about defects.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ood_perception.errors import ConfigError
from ood_perception.loader import open_model
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.image_score import (
    check_top_share,
    image_surprisal,
    image_threshold,
)
from ood_perception.texts import tell
from ood_perception.types import Frame

from ..data.images import list_images, read_image
from .options import command_parser

# Options of the command line that replace a parameter of the node.
_PARAMETERS = ('in_distribution', 'views', 'engine', 'precision', 'threads', 'weights')


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer image-threshold`."""
    result = command_parser(__doc__)
    add = result.add_argument
    add('bundle', nargs='?', help='folder or .zip; default: as --params says')
    add('--good', type=Path, required=True, help='folder of images of flawless parts')
    add('--last', type=float, default=1.0, help='the last share of them by name; default: all')
    add('--rate', type=float, default=0.02, help='share of flawless parts that may be rejected')
    add('--top-share', type=float, default=0.0, help='image_score.top_share of the node')
    add_parameters(result, _PARAMETERS)
    return result


def good_images(folder: Path, last: float) -> list[Path]:
    """Return the last share of the folder's images by name, at least one."""
    if not 0.0 < last <= 1.0:
        raise ConfigError(f'--last {last:g}: give a share of the images, above 0 up to 1')
    images = list_images(folder)
    return images[-math.ceil(last * len(images) - 1e-9) :]


def scores_of(pipeline: Pipeline, images: Sequence[Path], top_share: float) -> list[float]:
    """Return the image score of every image, in order."""
    scores = []
    for path in images:
        detection = pipeline.run([Frame(read_image(path))])[0]
        scores.append(image_surprisal(detection.surprisal, detection.scored, top_share))
    return scores


def main(arguments: Sequence[str]) -> int:
    """Print the threshold, and what it was taken from."""
    options = parser().parse_args(arguments)
    check_top_share(options.top_share)
    images = good_images(options.good, options.last)
    # without --params the whole image is scored
    values = chosen_parameters(options, ('bundle', *_PARAMETERS), tell)
    model = open_model({'roi.mode': 'none', **values}, tell)
    with model.engine:
        scores = scores_of(model.pipeline, images, options.top_share)
    threshold = image_threshold(scores, options.rate)
    low, middle, high = np.quantile(scores, [0, 0.5, 1])
    print(
        f'{len(scores)} flawless images: image score {low:.3f} to {high:.3f}, {middle:.3f} median'
    )
    print(f'at most {options.rate:g} of flawless parts are rejected with')
    print(f'image_score.threshold: {threshold!r}')
    return 0
