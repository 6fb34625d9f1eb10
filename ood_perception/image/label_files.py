# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Label pictures as ids: grey values or palette indices, in 1, 2, 4, 8 or 16 bits.

OpenCV turns palettes into colours and stretches grey of few bits over 0..255; a label is neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ood_perception.errors import DataError
from ood_perception.image.image_files import (
    broken,
    check_pixels,
    file_content,
    refuse_turned,
    sorted_out,
    tell,
)
from ood_perception.image.image_size import PNG_START, opened, png_size
from ood_perception.image.jpeg import START as JPEG_START
from ood_perception.types import UInt8Array

LABELS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
IGNORED = 255
_FORMATS = ('PNG', 'BMP', 'TIFF', 'GIF')  # lossless: others change ids
_ONE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L')
_PNG_DEPTH = 24  # the byte of the bit depth
_TIFF_DEPTH = 258  # the tag BitsPerSample


def label_files(folder: Path) -> dict[str, Path]:
    """
    Return the label pictures in a folder by stem, {} where there is no folder.

    Other files are told of. Raises DataError for two files of one stem.
    """
    if not folder.is_dir():
        return {}
    files, others = sorted_out(folder, LABELS)
    if others:
        tell(
            f'{folder}: {len(others)} files are not read as labels, such as {others[0].name}; '
            f'labels are {", ".join(LABELS)}'
        )
    found: dict[str, Path] = {}
    for path in files:
        if found.setdefault(path.stem, path) != path:
            raise DataError(f'{folder} holds {found[path.stem].name} and {path.name}: keep one')
    return found


def read_label(path: Path, what: str = 'label file') -> UInt8Array:
    """
    Return a label file's ids as uint8 (H, W): grey values, or the indices of a palette.

    what: how errors call the file. Raises DataError where it is missing, broken, lossy, in colour
    or holds an id above 255.
    """
    return decode_label(file_content(path, what), f'{what} {path}')


def decode_label(content: bytes, place: str) -> UInt8Array:
    """Return an encoded label picture as uint8 (H, W); place: names it in errors."""
    try:
        if content[:8] == PNG_START:
            png_size(np.frombuffer(content, np.uint8))
        with opened(content, _FORMATS) as image:
            check_pixels(*image.size, place)
            kind, frames = str(image.format), getattr(image, 'n_frames', 1)
            if kind == 'TIFF':
                refuse_turned(content, place)
            depth = _bit_depth(content, image)
            pixels, mode = np.asarray(image), image.mode
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders let struct's, zlib's and many others through
        if content[:2] == JPEG_START:
            raise DataError(f'{place} is a JPEG, which changes ids: save labels as PNG') from error
        raise broken(place, '' if isinstance(error, UnidentifiedImageError) else error) from error
    if frames > 1:
        raise DataError(f'{place} holds {frames} pictures: a label file holds one')
    if mode not in _ONE_CHANNEL:
        raise DataError(
            f'{place} is {pixels.dtype} with shape {pixels.shape}; expected one channel of class '
            'ids: save it as one grey channel of 8 bits or with a palette'
        )
    return _as_ids(pixels, mode, depth, place)


def _as_ids(pixels: Any, mode: str, depth: int, place: str) -> UInt8Array:
    """Return the stored values of decoded pixels."""
    if mode == 'L' and depth < 8:
        # Pillow stretches grey of 2 and 4 bits over 0..255, by a whole factor
        return np.asarray(pixels // (255 // ((1 << depth) - 1)), np.uint8)
    if pixels.size and not 0 <= int(pixels.min()) <= int(pixels.max()) <= 255:
        raise DataError(
            f'{place} is {pixels.dtype} with values from {pixels.min()} to {pixels.max()}: ids '
            'are 0 to 255; save it as one grey channel of 8 bits'
        )
    return pixels.astype(np.uint8)  # type: ignore[no-any-return]


def _bit_depth(content: bytes, image: Image.Image) -> int:
    """Return the bits that a pixel takes in the file."""
    if image.format == 'PNG':
        return content[_PNG_DEPTH]
    if image.format == 'TIFF':
        return int(getattr(image, 'tag_v2', {}).get(_TIFF_DEPTH, (8,))[0])
    return 8


def need_anomaly(labels: Iterable[UInt8Array], anomaly: Sequence[int], what: str) -> None:
    """
    Raise DataError unless a label holds an anomaly pixel; read none after the first that does.

    labels: uint8 (H, W) ids of the files. anomaly: the ids that mean it. what: names the labels.
    """
    seen, count = np.zeros(256, bool), 0
    for one in labels:
        seen |= np.bincount(one.ravel(), minlength=256) > 0
        count += 1
        if seen[list(anomaly)].any():
            return
    if count:
        raise DataError(_without_anomaly(np.flatnonzero(seen).tolist(), anomaly, count, what))


def _without_anomaly(values: list[int], anomaly: Sequence[int], count: int, what: str) -> str:
    wanted = ' or '.join(str(value) for value in sorted(anomaly)[:3])
    text = (
        f'{what}: none of {count} label pictures has a pixel of anomaly ({wanted}), they hold '
        f'{", ".join(map(str, values))}; nothing can be measured against them'
    )
    if IGNORED in values:
        text += (
            f'. {IGNORED} means ignored here: where it stands for anomaly, write the masks anew '
            f'with {anomaly[0]} in its place (mask[mask == {IGNORED}] = {anomaly[0]})'
        )
    return text
