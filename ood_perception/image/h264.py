# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Lost pictures of an H.264 stream, told by frame_num (ITU-T H.264, 7.3.2.1.1, 7.3.3 and 7.4.3).

A decoder guesses a missing reference picture and goes on; the numbers say that it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_START_CODE = re.compile(rb'\x00\x00\x01')
_SLICE, _IDR_SLICE, _PARAMETERS = 1, 5, 7
_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
# The fields that are read here end long before, emulation bytes counted.
_SLICE_HEADER_BYTES = 32


def units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of an Annex B packet, without their start codes."""
    codes = [match.start() for match in _START_CODE.finditer(data)]
    for code, following in pairwise([*codes, len(data)]):
        yield data[code + 3 : following]


def unit_type(unit: bytes, codec: str) -> int:
    """Return nal_unit_type of a unit that is not empty; codec: 'h264' or 'hevc'."""
    return unit[0] & 31 if codec == 'h264' else unit[0] >> 1 & 63


class Bits:
    """Reads the bits of a NAL unit's payload; IndexError behind its end."""

    def __init__(self, payload: bytes) -> None:
        self._bytes, self._place = payload.replace(b'\0\0\3', b'\0\0'), 0

    def unsigned(self, count: int) -> int:
        """Return u(count)."""
        value = 0
        for _ in range(count):
            byte = self._bytes[self._place // 8]
            value = 2 * value + (byte >> (7 - self._place % 8) & 1)
            self._place += 1
        return value

    def golomb(self) -> int:
        """Return ue(v), an Exp-Golomb number."""
        zeros = 0
        while not self.unsigned(1):
            zeros += 1
        return (1 << zeros) - 1 + self.unsigned(zeros)

    def signed(self) -> int:
        """Return se(v)."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -code // 2


@dataclass(frozen=True)
class Parameters:
    """What a slice header's frame_num needs of a sequence parameter set."""

    frame_num_bits: int
    separate_planes: bool
    gaps_allowed: bool


def read_parameters(unit: bytes) -> Parameters:
    """Return the values of a sequence parameter set; IndexError for one that is cut."""
    bits = Bits(unit[1:])
    profile = bits.unsigned(8)
    bits.unsigned(16)
    bits.golomb()
    separate = profile in _WITH_CHROMA_FORMAT and _skip_chroma_format(bits)
    frame_num_bits = bits.golomb() + 4
    _skip_picture_order(bits)
    bits.golomb()
    return Parameters(frame_num_bits, separate, bool(bits.unsigned(1)))


def _skip_chroma_format(bits: Bits) -> bool:
    """Read up to the scaling lists' end; return separate_colour_plane_flag."""
    chroma = bits.golomb()
    separate = chroma == 3 and bool(bits.unsigned(1))
    bits.golomb(), bits.golomb(), bits.unsigned(1)
    if bits.unsigned(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.unsigned(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    return separate


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _skip_picture_order(bits: Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.unsigned(1), bits.signed(), bits.signed()
        for _ in range(bits.golomb()):
            bits.signed()


class FrameNumbers:
    """Follows frame_num through a stream of packets of one picture each."""

    def __init__(self) -> None:
        self._parameters: Parameters | None = None
        self._reference: int | None = None

    def missing(self, data: bytes) -> bool:
        """Take the next packet; return whether a reference picture before it is missing."""
        for unit in units(data):
            kind = unit_type(unit, 'h264') if unit else 0
            if kind == _PARAMETERS:
                self._parameters = read_parameters(unit)
            elif kind in (_SLICE, _IDR_SLICE) and self._parameters is not None:
                return self._follow(unit, self._parameters)
        return False

    def _follow(self, unit: bytes, parameters: Parameters) -> bool:
        bits = Bits(unit[1:_SLICE_HEADER_BYTES])
        bits.golomb(), bits.golomb(), bits.golomb()
        bits.unsigned(2 if parameters.separate_planes else 0)
        number, before = bits.unsigned(parameters.frame_num_bits), self._reference
        if unit[0] & 0x60:
            self._reference = number
        if unit[0] & 31 == _IDR_SLICE or before is None or parameters.gaps_allowed:
            return False
        return (number - before) % (1 << parameters.frame_num_bits) > 1
