# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of an open bag: the one choice that evaluate_bag, player, trainer and demo share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from ood_perception.errors import ConfigError, DataError
from ood_perception.image.decode import FrameDecoder
from ood_perception.image.encodings import (
    COMPRESSED,
    IMAGE_TYPES,
    RAW,
    is_wide_grey_png,
    message_codec,
)
from ood_perception.types import Frame

from . import problems as kinds
from .metadata import Message
from .problems import Problems
from .reading import Bag

# OpenCV's names of one number a pixel and of float pixels: distances, confidences, flow. Colours
# are named rgb8, mono16 and so on by drivers; 8UC3 and 16UC3 are colours without a name.
_MEASURED = re.compile(r'(8S|16S|32S|32F|64F)C\d*|16UC[12]?')
# Types that carry images and are not read, also those of other encodings than CDR.
_UNREAD_TYPES = re.compile(
    r'foxglove\w*[./].*(CompressedImage|RawImage|CompressedVideo)\b.*'
    r'|theora_image_transport/msg/Packet'
    r'|sensor_msgs/(msg/)?(Compressed)?Image \(.*'
)
_DEPTH = 'compressedDepth'
# image_transport's plugins by the ending of their topics, in the order of preference. '' is raw.
_TRANSPORTS = ('', 'compressed', 'ffmpeg', 'foxglove', 'zstd', 'theora', _DEPTH)
_UNREAD = ('zstd', 'theora')
# Our own node's name, unless it was renamed: its masks and overlays are no cameras.
_NODE = 'road_anomaly'
# What image_pipeline makes of one camera, all in the camera's namespace.
_VARIANT = re.compile(r'image(_(raw|rect|rectified|color|colour|mono|gray|grey))*')
# What is added to the format of a PNG that says nothing else.
_GREY_16 = ', a grey PNG of 16 bits'
# A topic whose first messages are all damaged is taken as it is; its frames are counted then.
_TRIED = 20

Topics = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class CameraTopic:
    """
    A camera of the bag.

    camera: its name, '' for a single one, as the node's parameter `cameras`.
    msgtype: one of encodings.IMAGE_TYPES; where a topic has several, that of most of its messages.
    count: its messages by the bag's index.
    """

    camera: str
    topic: str
    msgtype: str
    count: int

    @property
    def info_topic(self) -> str:
        """The topic of its CameraInfo, beside the image's."""
        image, _ = _split_transport(self.topic)
        return f'{image.rpartition("/")[0]}/camera_info'


def open_cameras(
    bag: Bag, requested: Sequence[str] = (), without: Collection[str] = ()
) -> tuple[CameraTopic, ...]:
    """
    Return the cameras to evaluate as choose_cameras does, after a look at each topic's images.

    What is left out is added to the bag's notes, with the reason.
    """
    found = BagTopics(bag.topics, without, _first_forms(bag))
    cameras = choose_cameras(found, requested, bag.problems)
    bag.notes += _left_out(found, {camera.topic for camera in cameras}, bool(requested))
    return cameras


def camera_messages(bag: Bag, cameras: Sequence[CameraTopic]) -> Iterator[Message]:
    """Yield the image messages of the cameras' topics; another type on them is no image."""
    topics = {camera.topic for camera in cameras}
    return (message for message in bag.messages(topics) if message.msgtype in IMAGE_TYPES)


def camera_frames(
    bag: Bag, cameras: Sequence[CameraTopic], wanted: Collection[int] | None = None
) -> Iterator[Frame]:
    """
    Yield the frames of the messages with the wanted numbers, counted from 0; None: of all.

    Images between them are not decoded, packets of a video are. Raises DataError and ImageError
    as reading and decoding do.
    """
    decoders: dict[str, FrameDecoder[bool]] = {
        camera.topic: FrameDecoder(camera.camera) for camera in cameras
    }
    for number, message in enumerate(camera_messages(bag, cameras)):
        requested = wanted is None or number in wanted
        content = bag.cdr.read(message.data, message.msgtype)
        if requested or message_codec(content):
            done = decoders[message.topic].decode(content, requested)
            yield from (frame for chosen, frame in done if chosen)
    for decoder in decoders.values():
        yield from (frame for chosen, frame in decoder.finish()[0] if chosen)


@dataclass(frozen=True)
class BagTopics:
    """
    What a bag holds, as far as the choice of cameras asks for it.

    topics: messages by (topic, type). without: topics that are no cameras (ground truth).
    forms: encoding of a topic's Image or format of its CompressedImage messages, where known.
    """

    topics: Topics
    without: Collection[str] = ()
    forms: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of image messages by topic, of any type."""
        counts: Counter[str] = Counter()
        for (topic, kind), count in self.topics.items():
            if kind in IMAGE_TYPES:
                counts[topic] += count
        return counts

    @cached_property
    def raw(self) -> Collection[str]:
        """Topics of type Image."""
        return {topic for topic, kind in self.topics if kind == RAW}

    @cached_property
    def standing(self) -> Mapping[str, str]:
        """
        For each topic of images the one that is taken for its camera, itself where it is.

        Topics of one camera differ in transport, or are the raw, rectified, colour and grey
        images of one namespace. The first in the order raw, rectified, grey; then raw and
        compressed; that has at least half of the most messages.
        """
        images = [
            topic
            for topic in self.counts
            if topic not in self.without and not self.refusal(topic) and not self.set_aside(topic)
        ]
        families: dict[str, list[str]] = {}
        for topic in sorted([topic for topic in images if self.counts[topic]] or images):
            families.setdefault(_family(topic, topic in self.raw), []).append(topic)
        chosen: dict[str, str] = {}
        for members in families.values():
            most = max(self.counts[topic] for topic in members)
            full = [topic for topic in members if 2 * self.counts[topic] >= most]
            best = min(full, key=lambda topic: _rank(topic, topic in self.raw))
            chosen.update(dict.fromkeys(members, best))
        return chosen

    def refusal(self, topic: str) -> str:
        """Return why a topic holds no images that can be read, '' where it does."""
        form = self.forms.get(topic, '')
        encoding = form.partition(';')[0].strip()
        if topic.endswith(f'/{_DEPTH}') or _DEPTH in form or _MEASURED.fullmatch(encoding):
            what = form.strip() or _DEPTH
            return f'holds {what!r}: distances or other measurements, no images'
        for transport in _UNREAD:
            if topic.endswith(f'/{transport}') or form.strip() == transport:
                return f'comes by the transport {transport}, which is not read: republish it raw'
        return ''

    def set_aside(self, topic: str) -> str:
        """Return why a topic is taken only when it is named, '' where it is taken by default."""
        form = self.forms.get(topic, '')
        if form.endswith(_GREY_16) and ';' not in form:
            return f'holds {form!r}, most likely distances: name it to take it as images'
        if _NODE in topic.split('/')[:-1]:
            return f'is an output of the node {_NODE}: name it to take it as images'
        return ''

    def unread(self) -> list[tuple[str, str]]:
        """Return (topic, type) of the images that no part of the project reads, sorted."""
        return sorted(
            (topic, kind)
            for (topic, kind), count in self.topics.items()
            if count and kind not in IMAGE_TYPES and _UNREAD_TYPES.fullmatch(kind)
        )


def choose_cameras(
    found: BagTopics, requested: Sequence[str], problems: Problems
) -> tuple[CameraTopic, ...]:
    """
    Return the cameras to evaluate, sorted by topic.

    requested: '/topic' or 'name=/topic', with or without /compressed; () = every camera once,
    without topics that hold no images and empty ones.
    Raises DataError when no image topic is left, naming what the bag holds; ConfigError for a
    topic that the bag lacks and for names that do not fit.
    """
    named = {_as_recorded(found, topic): name for topic, name in _parsed(requested, found).items()}
    chosen: dict[str, tuple[str, int]] = {}
    for topic in named or set(found.standing.values()):
        kind_and_count = _image_type(found, topic, problems)
        if kind_and_count is not None:
            chosen[topic] = kind_and_count
    if not chosen:
        asked = named or {topic for topic, _ in found.topics}
        reasons = sorted(
            f'{topic} {found.refusal(topic)}; ' for topic in asked if found.refusal(topic)
        )
        unread = sorted({kind for _, kind in found.unread()})
        reasons += [f'images as {kind} are not read, republish them raw; ' for kind in unread]
        raise DataError(
            f'no image topic can be evaluated: {"".join(reasons)}the bag holds '
            f'{listing(found.topics)}'
        )
    names = _names({topic: named.get(topic, '') for topic in sorted(chosen)}, found.raw)
    return tuple(CameraTopic(name, topic, *chosen[topic]) for topic, name in names.items())


def listing(topics: Topics) -> str:
    """Return the topics in words."""
    rows = [f'{topic} ({kind}, {count})' for (topic, kind), count in sorted(topics.items())]
    return ', '.join(rows) or 'nothing'


def camera_name(topic: str) -> str:
    """Return 'front' for /front/image_raw and for /front/image_raw/compressed."""
    parts = _split_transport(topic)[0].strip('/').split('/')
    if len(parts) > 1 and parts[-1].startswith('image'):
        parts = parts[:-1]
    return '/'.join(parts)


def _parsed(entries: Sequence[str], found: BagTopics) -> dict[str, str]:
    """Return {topic: camera name or ''} for entries 'topic' or 'name=topic'; ConfigError."""
    topics: dict[str, str] = {}
    for entry in entries:
        name, equals, given = entry.rpartition('=')
        topic, similar = _rooted(given, {topic for topic, _ in found.topics})
        if not topic.startswith('/') or (equals and not name) or topic in topics:
            hint = f'; the bag has {", ".join(similar)}' if similar else ''
            raise ConfigError(
                f'--topics {entry!r}: give each topic once, from the root, as /camera/image_raw '
                f'or front=/camera/image_raw{hint}'
            )
        topics[topic] = name
    return topics


def _rooted(topic: str, known: Collection[str]) -> tuple[str, list[str]]:
    """Return a topic from the root where one alone is meant; and those that end like it."""
    if topic.startswith('/') or not topic:
        return topic, []
    bases = {_split_transport(name)[0] for name in known}
    similar = sorted(name for name in {*known, *bases} if name.endswith(f'/{topic}'))
    if f'/{topic}' in similar:
        return f'/{topic}', []
    return (similar[0], []) if len(similar) == 1 else (topic, similar)


def _as_recorded(found: BagTopics, topic: str) -> str:
    """Return the topic, or a compressed form of it where only that was recorded."""
    if topic in {name for name, _ in found.topics} - found.counts.keys():
        return topic
    forms = (topic, *(f'{topic}/{transport}' for transport in _TRANSPORTS[1:]))
    return next((form for form in forms if found.counts.get(form)), topic)


def _image_type(found: BagTopics, topic: str, problems: Problems) -> tuple[str, int] | None:
    """Return a topic's message type and count; None, with a problem, when it holds no images."""
    types = {kind: count for (name, kind), count in found.topics.items() if name == topic}
    if not types:
        raise ConfigError(f'the bag has no topic {topic}; it holds {listing(found.topics)}')
    images = {kind: types[kind] for kind in IMAGE_TYPES if kind in types}
    reason = found.refusal(topic)
    if images and not reason:
        return max(images, key=lambda kind: images[kind]), sum(images.values())
    if not images:
        choice = ' or '.join(IMAGE_TYPES)
        reason = f'holds {", ".join(types)}, which is no image: choose topics of {choice}'
    problems.add(kinds.MESSAGE_TYPE, topic, f'topic {topic} {reason}')
    return None


def _names(given: Mapping[str, str], raw: Collection[str]) -> dict[str, str]:
    """Return camera names by topic: those given, else made from the topics, '' for a single."""
    if len(given) == 1:
        return dict(given)
    names = {topic: name or camera_name(topic) for topic, name in given.items()}
    counts = Counter(names.values())
    for topic, name in names.items():
        if counts[name] > 1 and not given[topic]:
            names[topic] = _split_transport(topic, topic in raw)[0].strip('/')
    if len(set(names.values())) < len(names):
        raise ConfigError(
            f'topics {", ".join(given)} give cameras of the same name: name them, as in '
            '--topics front=/a/image left=/b/image'
        )
    return names


def _left_out(found: BagTopics, chosen: Collection[str], named: bool) -> list[str]:
    """Return in words what of the bag's images is not evaluated; nothing where all was named."""
    words = [
        f'{topic} also holds {kind} ({count}), which is no image'
        for (topic, kind), count in sorted(found.topics.items())
        if topic in chosen and kind not in IMAGE_TYPES and count
    ]
    if named:
        return words
    for topic in sorted(found.counts.keys() - set(chosen) - set(found.without)):
        reason = found.refusal(topic) or found.set_aside(topic)
        if not reason and topic in found.standing:
            taken = found.standing[topic]
            reason = f'shows the same camera as {taken}: name it to take it instead'
        words.append(f'{topic} is left out: it {reason or "has no messages"}')
    bases = {_split_transport(topic)[0] for topic in chosen}
    return words + [
        f'{topic} is left out: images as {kind} are not read, republish them raw'
        for topic, kind in found.unread()
        if _split_transport(topic)[0] not in bases
    ]


def _split_transport(topic: str, raw: bool = False) -> tuple[str, str]:
    """Return the topic without its transport, and the transport ('' is raw)."""
    base, _, transport = topic.rpartition('/')
    return (base, transport) if not raw and base and transport in _TRANSPORTS else (topic, '')


def _family(topic: str, raw: bool) -> str:
    base, _ = _split_transport(topic, raw)
    namespace, _, name = base.rpartition('/')
    return f'{namespace}/image' if _VARIANT.fullmatch(name) else base


def _rank(topic: str, raw: bool) -> tuple[bool, bool, bool, int, str]:
    base, transport = _split_transport(topic, raw)
    words = base.rpartition('/')[2].split('_')
    return (
        not {'mono', 'gray', 'grey'}.isdisjoint(words),
        not {'rect', 'rectified'}.isdisjoint(words),
        'raw' not in words,
        _TRANSPORTS.index(transport),
        topic,
    )


def _first_forms(bag: Bag) -> dict[str, str]:
    """Return the encoding or format of each image topic's first message that can be read."""
    forms: dict[str, str] = {}
    for (topic, kind), count in bag.topics.items():
        for message in islice(bag.peek(topic), _TRIED if kind in IMAGE_TYPES and count else 0):
            try:
                forms[topic] = _form(bag.cdr.read(message.data, message.msgtype))
                break
            except DataError:
                continue
    return forms


def _form(message: Any) -> str:
    if message.__msgtype__ == RAW:
        return str(message.encoding)
    if message.__msgtype__ != COMPRESSED:
        return ''
    return str(message.format) + (_GREY_16 if is_wide_grey_png(message.data, '') else '')
