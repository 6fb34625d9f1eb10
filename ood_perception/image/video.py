# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
H.264 and H.265 streams, packet by packet and in order, by PyAV (the extra `video`).

A picture is handed out only if it and all before it, back to a key frame, decoded without an
error: a decoder fills what it lacks with guesses, which would be scored as the camera's.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

from ood_perception.errors import ImageError
from ood_perception.types import UInt8Array

from . import image_size
from .h264 import FrameNumbers, unit_type, units

Ticket = TypeVar('Ticket')
# Unit types that hold a piece of a picture, and those of key frames.
_PICTURES = {'h264': range(1, 6), 'hevc': range(32)}
_KEYS = {'h264': range(5, 6), 'hevc': range(16, 24)}
# No stream holds a picture back for longer: a decoded picture buffer has 16 places.
_LATEST = 32


class VideoStream(Generic[Ticket]):
    """
    The decoder of one topic.

    lost: packets that were taken and gave no picture at all.
    """

    def __init__(self, codec: str) -> None:
        """codec: 'h264' or 'hevc'. Raises ImageError without PyAV."""
        self.codec, self.lost = codec, 0
        self._av = _pyav()
        self._context: Any = self._av.CodecContext.create(codec, 'r')
        self._context.options = {'max_pixels': str(image_size.MAX_PIXELS)}
        # Frame threads would hold pictures back, and log where nobody listens.
        self._context.thread_count = 1
        self._numbers = FrameNumbers()
        self._tickets: dict[int, Ticket] = {}
        self._count = 0
        self._broken = 'it has not had one yet'

    def decode(self, data: bytes, ticket: Ticket) -> list[tuple[Ticket, UInt8Array]]:
        """
        Return the pictures that a packet completes: (its own packet's ticket, RGB (H, W, 3)).

        data: one picture in Annex B form. ticket: tells the caller which packet it was. A stream
        with B frames gives pictures late, in the order of presentation. Raises ImageError for a
        packet that is damaged, follows a lost one, or waits for a key frame; go on feeding then.
        """
        kinds = self._kinds(data)
        trouble = self._missing(data)
        frames, errors = self._feed(data, ticket)
        if trouble or errors:
            self._break(trouble or errors)
        elif any(kind in _KEYS[self.codec] for kind in kinds) or _has_key(frames, self._count):
            self._broken = ''
        if self._broken:
            self._tickets.pop(self._count, None)
            raise ImageError(
                f'{self.codec} packet of {len(data)} bytes: the stream waits for a key frame, '
                f'because {self._broken}'
            )
        return self._taken(frames)

    def finish(self) -> list[tuple[Ticket, UInt8Array]]:
        """Return the pictures that were held back; the packets that never gave one are lost."""
        done = [] if self._broken else self._taken(self._context.decode(None))
        self.lost += len(self._tickets)
        self._tickets.clear()
        return done

    def _kinds(self, data: bytes) -> list[int]:
        """Return the unit types of a packet; ImageError for one that is none or has no picture."""
        kinds = [unit_type(unit, self.codec) for unit in units(data) if unit]
        if any(kind in _PICTURES[self.codec] for kind in kinds):
            return kinds
        if kinds:
            self._feed(data, None)
        what = 'holds no picture' if kinds else 'has no unit behind a start code: publish Annex B'
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
        corrupt = 'its picture is corrupt' if any(f.is_corrupt for f in frames) else ''
        return frames, complaints[0][2].strip() if complaints else corrupt

    def _break(self, reason: str) -> None:
        self._broken = reason
        self._forget(self._count - 1)

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


def _has_key(frames: list[Any], number: int) -> bool:
    """Return whether a packet is a key frame that its unit type does not show (open GOP)."""
    return any(frame.key_frame and frame.pts == number for frame in frames)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageError(
            "decoding H.264 and H.265 needs PyAV: pip install 'ood_perception[video]'"
        ) from error
    # What the decoder complains of is all that tells damage; PyAV keeps it quiet by default.
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
    return av
