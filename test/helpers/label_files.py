# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label images of every kind that programs write, and images that an EXIF tag turns."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# First row and column, steps of rows and columns of the seven passes (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
           (1, 0, 2, 1))  # fmt: skip


def png_of(
    ids: np.ndarray,
    bits: int = 8,
    palette: bool = False,
    interlaced: bool = False,
    clear: int = -1,
) -> bytes:
    """Return a PNG of ids (H, W) in so many bits; palette: all colours alike; clear: tRNS."""
    height, width = ids.shape
    head = struct.pack('>IIBBBBB', width, height, bits, 3 if palette else 0, 0, 0, interlaced)
    parts = [ids[r::dr, c::dc] for r, c, dr, dc in _PASSES] if interlaced else [ids]
    rows = b''.join(_rows(part, bits) for part in parts if part.size)
    chunks = [(b'IHDR', head)]
    if palette:
        chunks.append((b'PLTE', bytes([90]) * (3 << bits)))
    if clear >= 0:
        chunks.append((b'tRNS', bytes([0]) if palette else struct.pack('>H', clear)))
    chunks += [(b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(_chunk(kind, content) for kind, content in chunks)


def _rows(ids: np.ndarray, bits: int) -> bytes:
    rows = b''
    for row in ids:
        text = ''.join(format(int(value), f'0{bits}b') for value in row)
        text += '0' * (-len(text) % 8)
        rows += b'\0' + int(text, 2).to_bytes(len(text) // 8, 'big')
    return rows


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack(
        '>I', zlib.crc32(kind + content)
    )  # fmt: skip


def turned(pixels: np.ndarray, form: str, orientation: int) -> bytes:
    """Return pixels (H, W, 3) or (H, W) encoded with an EXIF orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    content = io.BytesIO()
    options = {'lossless': True} if form == 'WEBP' else {'quality': 100}
    Image.fromarray(pixels).save(content, form, exif=exif, **options)
    return content.getvalue()


def write_set(folder: Path, masks: dict[str, bytes], shape: tuple[int, int]) -> Path:
    """Write images/ of noise and labels/ of these contents, by file name."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, content in masks.items():
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(folder / 'images' / f'{Path(name).stem}.png')
        (folder / 'labels' / name).write_bytes(content)
    return folder
