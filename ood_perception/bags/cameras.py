# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of an open bag: the one choice that evaluate_bag, player, trainer and demo share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from ood_perception.errors import DataError
from ood_perception.image.encodings import COMPRESSED, RAW

from .messages import Cdr
from .pictures import GREY_16
from .problems import Problems
from .reading import Bag, Message
from .topics import IMAGES, CameraTopic, choose_cameras, left_out

# A topic whose first messages are all damaged is taken as it is; its frames are counted then.
_TRIED = 20


def open_cameras(
    bag: Bag,
    cdr: Cdr,
    problems: Problems,
    wanted: Sequence[str] = (),
    without: Collection[str] = (),
) -> tuple[CameraTopic, ...]:
    """
    Return the cameras to evaluate as choose_cameras does, after a look at each topic's pictures.

    What is left out is added to the bag's notes, with the reason.
    """
    forms = first_forms(bag, cdr)
    cameras = choose_cameras(bag.topics, wanted, without, problems, forms)
    bag.notes += left_out(bag.topics, cameras, without, forms, bool(wanted))
    return cameras


def camera_messages(bag: Bag, cameras: Sequence[CameraTopic]) -> Iterator[Message]:
    """Yield the image messages of the cameras' topics; another type on them is no picture."""
    topics = {camera.topic for camera in cameras}
    return (message for message in bag.messages(topics) if message.msgtype in IMAGES)


def first_forms(bag: Bag, cdr: Cdr) -> dict[str, str]:
    """Return the encoding or format of each image topic's first message that can be read."""
    forms: dict[str, str] = {}
    for (topic, kind), count in bag.topics.items():
        for message in islice(bag.peek(topic), _TRIED if kind in IMAGES and count else 0):
            try:
                forms[topic] = _form(cdr.read(message.data, message.msgtype))
                break
            except DataError:
                continue
    return forms


def _form(message: Any) -> str:
    if message.__msgtype__ == RAW:
        return str(message.encoding)
    if message.__msgtype__ != COMPRESSED:
        return ''
    data = bytes(message.data[:26])
    grey_16 = data[:4] == b'\x89PNG' and data[24:26] == b'\x10\x00'
    return str(message.format) + (GREY_16 if grey_16 else '')
