# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
H.264 and H.265 streams, packet by packet and in order, by PyAV (the extra `video`).

An image is handed out only if it and all before it, back to a key frame, decoded without an
error: a decoder fills what it lacks with guesses, which would be scored as the camera's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from ood_perception.errors import ImageError
from ood_perception.requirements import install_command
from ood_perception.types import UInt8Array

from . import encoded

_START_CODE = re.compile(rb'\x00\x00\x01')
_SLICE, _IDR_SLICE, _PARAMETERS = 1, 5, 7
_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
# The fields that are read here end long before, emulation bytes counted.
_SLICE_HEADER_BYTES = 32
_PARAMETERS_BYTES = 4096
Ticket = TypeVar('Ticket')
# Unit types that hold a piece of an image, and those of key frames.
_IMAGES = {'h264': range(1, 6), 'hevc': range(32)}
_KEYS = {'h264': range(5, 6), 'hevc': range(16, 24)}
# No stream holds an image back for longer: a decoded image buffer has 16 places.
_LATEST = 32


def units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of an Annex B packet, without their start codes."""
    codes = [match.start() for match in _START_CODE.finditer(data)]
    for code, following in pairwise([*codes, len(data)]):
        yield data[code + 3 : following]


def unit_type(unit: bytes, codec: str) -> int:
    """Return nal_unit_type of a unit that is not empty; codec: 'h264' or 'hevc'."""
    return unit[0] & 31 if codec == 'h264' else unit[0] >> 1 & 63


class _Bits:
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
class _SequenceParameters:
    """What a slice header's frame_num needs of a sequence parameter set."""

    frame_num_bits: int
    separate_planes: bool
    gaps_allowed: bool


def _read_parameters(unit: bytes) -> _SequenceParameters:
    """Return the values of a sequence parameter set; IndexError for one that is cut."""
    bits = _Bits(unit[1:])
    profile = bits.unsigned(8)
    bits.unsigned(16)
    bits.golomb()
    separate = profile in _WITH_CHROMA_FORMAT and _skip_chroma_format(bits)
    frame_num_bits = bits.golomb() + 4
    _skip_image_order(bits)
    bits.golomb()
    return _SequenceParameters(frame_num_bits, separate, bool(bits.unsigned(1)))


def _skip_chroma_format(bits: _Bits) -> bool:
    """Read up to the scaling lists' end; return separate_colour_plane_flag."""
    chroma = bits.golomb()
    separate = chroma == 3 and bool(bits.unsigned(1))
    bits.golomb(), bits.golomb(), bits.unsigned(1)
    if bits.unsigned(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.unsigned(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    return separate


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _skip_image_order(bits: _Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.unsigned(1), bits.signed(), bits.signed()
        for _ in range(bits.golomb()):
            bits.signed()


class FrameNumbers:
    """
    Follows frame_num through an H.264 stream of packets of one image each.

    A decoder guesses a missing reference image and goes on; the numbers say that it is missing
    (ITU-T H.264, 7.3.2.1.1, 7.3.3 and 7.4.3).
    """

    def __init__(self) -> None:
        self._parameters: _SequenceParameters | None = None
        self._reference: int | None = None

    def missing(self, data: bytes) -> bool:
        """Take the next packet; return whether a reference image before it is missing."""
        for unit in units(data):
            kind = unit_type(unit, 'h264') if unit else 0
            if kind == _PARAMETERS:
                self._parameters = _read_parameters(unit[:_PARAMETERS_BYTES])
            elif kind in (_SLICE, _IDR_SLICE) and self._parameters is not None:
                return self._follow(unit, self._parameters)
        return False

    def _follow(self, unit: bytes, parameters: _SequenceParameters) -> bool:
        bits = _Bits(unit[1:_SLICE_HEADER_BYTES])
        bits.golomb(), bits.golomb(), bits.golomb()
        bits.unsigned(2 if parameters.separate_planes else 0)
        number, before = bits.unsigned(parameters.frame_num_bits), self._reference
        if unit[0] & 0x60:
            self._reference = number
        if unit[0] & 31 == _IDR_SLICE or before is None or parameters.gaps_allowed:
            return False
        return (number - before) % (1 << parameters.frame_num_bits) > 1


class VideoStream(Generic[Ticket]):
    """The decoder of one topic; lost: packets that were taken and gave no image at all."""

    def __init__(self, codec: str, most_pixels: int | None = None) -> None:
        """
        Begin without any frame.

        codec: 'h264' or 'hevc'. most_pixels: of a frame; None is encoded.MAX_PIXELS. Raises
        ImageError without PyAV.
        """
        self.codec, self.lost = codec, 0
        self._av = _pyav()
        self._context: Any = self._av.CodecContext.create(codec, 'r')
        most = encoded.MAX_PIXELS if most_pixels is None else most_pixels
        self._context.options = {'max_pixels': str(most)}
        # Frame threads would hold images back, and log where nobody listens.
        self._context.thread_count = 1
        self._numbers = FrameNumbers()
        self._tickets: dict[int, Ticket] = {}
        self._count = 0
        self._broken = 'it has not had one yet'

    def decode(self, data: bytes, ticket: Ticket) -> list[tuple[Ticket, UInt8Array]]:
        """
        Return the images that a packet completes: (its own packet's ticket, RGB (H, W, 3)).

        data: one image in Annex B form. ticket: tells the caller which packet it was. A stream
        with B frames gives images late, in the order of presentation. Raises ImageError for a
        packet that is damaged, follows a lost one, or waits for a key frame; go on feeding then.
        """
        kinds = self._kinds(data)
        trouble = self._missing(data)
        frames, errors = self._feed(data, ticket)
        # A key frame that its unit type does not show
        open_gop = any(frame.key_frame and frame.pts == self._count for frame in frames)
        if trouble or errors:
            self._broken = trouble or errors
            self._forget(self._count - 1)
        elif any(kind in _KEYS[self.codec] for kind in kinds) or open_gop:
            self._broken = ''
        if self._broken:
            self._tickets.pop(self._count, None)
            raise ImageError(
                f'{self.codec} packet of {len(data)} bytes: the stream waits for a key frame, '
                f'because {self._broken}'
            )
        return self._taken(frames)

    def finish(self) -> list[tuple[Ticket, UInt8Array]]:
        """Return the images that were held back; the packets that never gave one are lost."""
        done = [] if self._broken else self._taken(self._context.decode(None))
        self.lost += len(self._tickets)
        self._tickets.clear()
        return done

    def _kinds(self, data: bytes) -> list[int]:
        """Return the unit types of a packet; ImageError for one that is none or has no image."""
        kinds = [unit_type(unit, self.codec) for unit in units(data) if unit]
        if any(kind in _IMAGES[self.codec] for kind in kinds):
            return kinds
        if kinds:
            self._feed(data, None)
        what = 'holds no image' if kinds else 'has no unit behind a start code: publish Annex B'
        raise ImageError(f'{self.codec} packet of {len(data)} bytes {what}')

    def _missing(self, data: bytes) -> str:
        """Return what is missing before this packet, '' for nothing."""
        if self.codec != 'h264':
            return ''
        try:
            return 'a packet before it is missing' if self._numbers.missing(data) else ''
        except IndexError:
            return 'its header is cut'

    def _feed(self, data: bytes, ticket: Ticket | None) -> tuple[list[Any], str]:
        """Decode; return PyAV's frames and the first of the decoder's complaints, '' for none."""
        packet = self._av.Packet(data)
        if ticket is not None:
            self._count += 1
            self._tickets[self._count] = ticket
            self._forget(self._count - _LATEST)
        packet.pts = self._count
        with self._av.logging.Capture() as complaints:
            try:
                frames = self._context.decode(packet)
            except self._av.FFmpegError as error:
                return [], str(error)
        corrupt = 'its image is corrupt' if any(f.is_corrupt for f in frames) else ''
        return frames, complaints[0][2].strip() if complaints else corrupt

    def _forget(self, last: int) -> None:
        """Give the packets up to number `last` up."""
        for number in [number for number in self._tickets if number <= last]:
            del self._tickets[number]
            self.lost += 1

    def _taken(self, frames: list[Any]) -> list[tuple[Ticket, UInt8Array]]:
        return [
            (self._tickets.pop(frame.pts), np.ascontiguousarray(frame.to_ndarray(format='rgb24')))
            for frame in frames
            if frame.pts in self._tickets
        ]


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageError(
            f'decoding H.264 and H.265 needs PyAV: {install_command("video")}'
        ) from error
    # What the decoder complains of is all that tells damage; PyAV keeps it quiet by default.
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
    return av
