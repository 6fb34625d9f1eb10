# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One camera's messages to frames, in order: the one way in for the node and for bags.

Pictures are decoded each by itself, packets of a video by a stream that remembers the last ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from ood_perception.types import Frame, UInt8Array

from .decode import bytes_of, decode_compressed, decode_image
from .encodings import message_codec
from .video import Ticket, VideoStream

NANOSECONDS = 1_000_000_000


Otherwise = Callable[[Any], UInt8Array]


class FrameDecoder(Generic[Ticket]):
    """
    Decodes what arrives on one camera's topic.

    camera: the frames' camera. otherwise: for encodings of Image that our tables lack, or None.
    """

    def __init__(self, camera: str, otherwise: Otherwise | None = None) -> None:
        self._camera, self._otherwise = camera, otherwise
        self._stream: VideoStream[tuple[Ticket, Any]] | None = None

    def decode(self, message: Any, ticket: Ticket) -> list[tuple[Ticket, Frame]]:
        """
        Return the frames that a message completes: one for a picture, any number for a packet.

        message: sensor_msgs/Image or CompressedImage, foxglove_msgs/CompressedVideo or
        ffmpeg_image_transport_msgs/FFMPEGPacket. ticket: comes back with the message's own frame.
        Raises ImageError for what is not what it claims, and as VideoStream.decode does.
        """
        codec = message_codec(message)
        if codec:
            return self._from_stream(codec, message, ticket)
        raw = hasattr(message, 'step')
        image = decode_image(message, self._otherwise) if raw else decode_compressed(message)
        return [(ticket, self._frame(message, image))]

    def finish(self) -> tuple[list[tuple[Ticket, Frame]], int]:
        """Return the frames that a stream held back, and how many packets never gave one."""
        if self._stream is None:
            return [], 0
        stream, self._stream = self._stream, None
        done = self._framed(stream.finish())
        return done, stream.lost

    def _from_stream(self, codec: str, message: Any, ticket: Ticket) -> list[tuple[Ticket, Frame]]:
        if self._stream is None or self._stream.codec != codec:
            self._stream = VideoStream(codec)
        data = bytes_of(message, f'{codec} packet').tobytes()
        return self._framed(self._stream.decode(data, (ticket, message)))

    def _framed(
        self, pictures: list[tuple[tuple[Ticket, Any], UInt8Array]]
    ) -> list[tuple[Ticket, Frame]]:
        return [(ticket, self._frame(message, image)) for (ticket, message), image in pictures]

    def _frame(self, message: Any, image: UInt8Array) -> Frame:
        place = message.header if hasattr(message, 'header') else message
        return Frame(image, self._camera, stamp_ns(message), place.frame_id)


def stamp_ns(message: Any) -> int:
    """Return a message's stamp in nanoseconds, of its header or CompressedVideo's own."""
    stamp = message.header.stamp if hasattr(message, 'header') else message.timestamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)
