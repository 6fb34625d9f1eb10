# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Palette PNGs hold class ids as indices; OpenCV would turn them into the palette's colours."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY, _PALETTE = 0, 3


def palette_as_grey(content: bytes) -> bytes:
    """
    Return an 8-bit palette PNG as the grey PNG of its indices; anything else as it is.

    Both types store one byte a pixel in the same way, so only the header's colour type changes
    (PNG specification, 11.2.2) and the palette's chunks go.
    """
    if content[:8] != _SIGNATURE or content[24:26] != bytes((8, _PALETTE)):
        return content
    parts = [_SIGNATURE]
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack_from('>I', content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        chunk = content[place:end]
        if kind == b'IHDR':
            body = kind + chunk[8:17] + bytes((_GREY,)) + chunk[18:21]
            chunk = chunk[:4] + body + struct.pack('>I', zlib.crc32(body))
        if kind not in (b'PLTE', b'tRNS', b'bKGD'):
            parts.append(chunk)
        place = end
    return b''.join(parts)
