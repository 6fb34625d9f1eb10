# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""cv_bridge for what ood_perception.image.decode does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ood_perception.errors import ImageError
from ood_perception.image.decode import first_line
from ood_perception.image.encodings import known_encodings
from ood_perception.types import UInt8Array


def decode_by_cv_bridge(message: Any) -> UInt8Array:
    """Let cv_bridge decode what our tables do not know, where it is installed; ImageError."""
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise ImageError(
            f'Image encoding {message.encoding!r} is not known ({known_encodings()}) and '
            'cv_bridge is not installed: set the encoding of the camera driver to one of these'
        ) from None
    convert: Callable[..., Any] = CvBridge().imgmsg_to_cv2
    try:
        return np.ascontiguousarray(convert(message, 'rgb8'), dtype=np.uint8)
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors, and TypeError
        raise ImageError(
            f'Image encoding {message.encoding!r}: cv_bridge cannot convert it to rgb8 '
            f'({first_line(error)}): set the camera driver to one of {known_encodings()}'
        ) from error
