# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of an open bag: the one choice that evaluate_bag, player, trainer and demo share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ood_perception.errors import ConfigError, DataError
from ood_perception.image.encodings import COMPRESSED, IMAGE_TYPES, RAW

from . import problems as kinds
from .messages import Cdr
from .problems import Problem, Problems
from .reading import Bag, Message

# OpenCV's names of one number a pixel and of float pixels: distances, confidences, flow. Colours
# are named rgb8, mono16 and so on by drivers; 8UC3 and 16UC3 are colours without a name.
_MEASURED = re.compile(r'(8S|16S|32S|32F|64F)C\d*|16UC[12]?')

# Types that carry pictures and are not read, also those of other encodings than CDR.
_UNREAD_TYPES = re.compile(
    r'foxglove\w*[./].*(CompressedImage|RawImage|CompressedVideo)\b.*'
    r'|theora_image_transport/msg/Packet'
    r'|sensor_msgs/(msg/)?(Compressed)?Image \(.*'
)

_DEPTH = 'compressedDepth'

# image_transport's plugins by the ending of their topics, in the order of preference. '' is raw.
TRANSPORTS = ('', 'compressed', 'ffmpeg', 'foxglove', 'zstd', 'theora', _DEPTH)

_UNREAD = ('zstd', 'theora')

# Our own node's name, unless it was renamed: its masks and overlays are no cameras.
_NODE = 'road_anomaly'

# What image_pipeline makes of one camera, all in the camera's namespace.
_VARIANT = re.compile(r'image(_(raw|rect|rectified|color|colour|mono|gray|grey))*')


def refusal(topic: str, form: str) -> str:
    """
    Return why a topic holds no pictures that can be read, '' where it does.

    form: encoding of its Image or format of its CompressedImage messages, '' for not known.
    """
    encoding = form.partition(';')[0].strip()
    if topic.endswith(f'/{_DEPTH}') or _DEPTH in form or _MEASURED.fullmatch(encoding):
        return f'holds {form.strip() or _DEPTH!r}: distances or other measurements, no pictures'
    for transport in _UNREAD:
        if topic.endswith(f'/{transport}') or form.strip() == transport:
            return f'comes by the transport {transport}, which is not read: republish it raw'
    return ''


def is_unread(kind: str) -> bool:
    """Return whether messages of a type are pictures that no part of the project reads."""
    return _UNREAD_TYPES.fullmatch(kind) is not None


def set_aside(topic: str, form: str) -> str:
    """Return why a topic is taken only when it is named, '' where it is taken by default."""
    if form.endswith(GREY_16) and ';' not in form:
        return f'holds {form!r}, most likely distances: name it to take it as pictures'
    if _NODE in topic.split('/')[:-1]:
        return f'is an output of the node {_NODE}: name it to take it as pictures'
    return ''


# What first_forms adds to the format of such a PNG.
GREY_16 = ', a grey PNG of 16 bits'


def split_transport(topic: str, raw: bool) -> tuple[str, str]:
    """Return the topic without its transport, and the transport ('' is raw)."""
    base, _, transport = topic.rpartition('/')
    return (base, transport) if not raw and base and transport in TRANSPORTS else (topic, '')


def representatives(counts: Mapping[str, int], raw: Sequence[str]) -> dict[str, str]:
    """
    Return for each topic the one that is taken for its camera, itself where it is.

    counts: messages by image topic. raw: those of type Image. Topics of one camera differ in
    transport, or are the raw, rectified, colour and grey pictures of one namespace. The first in
    the order raw, rectified, grey; then raw and compressed; that has at least half of the most.
    """
    families: dict[str, list[str]] = {}
    for topic in sorted(counts):
        families.setdefault(_family(topic, topic in raw), []).append(topic)
    chosen: dict[str, str] = {}
    for members in families.values():
        most = max(counts[topic] for topic in members)
        full = [topic for topic in members if 2 * counts[topic] >= most]
        best = min(full, key=lambda topic: _rank(topic, topic in raw))
        chosen.update(dict.fromkeys(members, best))
    return chosen


def _family(topic: str, raw: bool) -> str:
    base, _ = split_transport(topic, raw)
    namespace, _, name = base.rpartition('/')
    return f'{namespace}/image' if _VARIANT.fullmatch(name) else base


def _rank(topic: str, raw: bool) -> tuple[bool, bool, bool, int, str]:
    base, transport = split_transport(topic, raw)
    words = base.rpartition('/')[2].split('_')
    return (
        not {'mono', 'gray', 'grey'}.isdisjoint(words),
        not {'rect', 'rectified'}.isdisjoint(words),
        'raw' not in words,
        TRANSPORTS.index(transport),
        topic,
    )


IMAGES = IMAGE_TYPES

_NOTHING: Mapping[str, str] = {}

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


def parse_topics(
    option: str, entries: Sequence[str], known: Collection[str] = ()
) -> dict[str, str]:
    """
    Return {topic: camera name or ''} for entries 'topic' or 'name=topic'; ConfigError.

    known: the bag's topics. A topic without its '/' is looked for among them.
    """
    topics: dict[str, str] = {}
    for entry in entries:
        name, equals, given = entry.rpartition('=')
        topic, similar = _rooted(given, known)
        if not topic.startswith('/') or (equals and not name) or topic in topics:
            hint = f'; the bag has {", ".join(similar)}' if similar else ''
            raise ConfigError(
                f'{option} {entry!r}: give each topic once, from the root, as /camera/image_raw '
                f'or front=/camera/image_raw{hint}'
            )
        topics[topic] = name
    return topics


def _rooted(topic: str, known: Collection[str]) -> tuple[str, list[str]]:
    """Return a topic from the root where one alone is meant; and those that end like it."""
    if topic.startswith('/') or not topic:
        return topic, []
    bases = {split_transport(name, raw=False)[0] for name in known}
    similar = sorted(name for name in {*known, *bases} if name.endswith(f'/{topic}'))
    if f'/{topic}' in similar:
        return f'/{topic}', []
    return (similar[0], []) if len(similar) == 1 else (topic, similar)


def choose_cameras(
    topics: Topics,
    wanted: Sequence[str],
    without: Collection[str],
    problems: Problems,
    forms: Mapping[str, str] = _NOTHING,
) -> tuple[CameraTopic, ...]:
    """
    Return the cameras to evaluate, sorted by topic.

    wanted: as parse_topics takes them, with or without /compressed; () = every camera once,
    without those of `without` (ground truth), topics that hold no pictures and empty ones.
    forms: encoding or format by topic, as far as known.
    Raises DataError when no image topic is left, naming what the bag holds; ConfigError for a
    topic that the bag lacks and for names that do not fit.
    """
    known = {topic for topic, _ in topics}
    named = parse_topics('--topics', wanted, known)
    named = {_as_recorded(topics, topic): name for topic, name in named.items()}
    found: dict[str, tuple[str, int]] = {}
    for topic in named or _all_cameras(topics, without, forms):
        kind_and_count = _image_type(topics, topic, forms.get(topic, ''), problems)
        if kind_and_count is not None:
            found[topic] = kind_and_count
    if not found:
        reasons = [f'{topic} {refusal(topic, forms.get(topic, ""))}' for topic in named or known]
        reasons = sorted(reason for reason in reasons if not reason.endswith(' '))
        unread = {kind for (_, kind), count in topics.items() if count and is_unread(kind)}
        reasons += [
            f'pictures as {kind} are not read, republish them raw' for kind in sorted(unread)
        ]
        raise DataError(
            f'no image topic can be evaluated: {"; ".join([*reasons, ""])}the bag holds '
            f'{listing(topics)}'
        )
    names = _names({topic: named.get(topic, '') for topic in sorted(found)}, topics)
    return tuple(CameraTopic(names[topic], topic, *found[topic]) for topic in sorted(found))


def left_out(
    topics: Topics,
    cameras: Sequence[CameraTopic],
    without: Collection[str],
    forms: Mapping[str, str],
    named: bool,
) -> list[str]:
    """Return in words what of the bag's pictures is not evaluated; nothing where all was named."""
    chosen = {camera.topic for camera in cameras}
    words = [
        f'{topic} also holds {kind} ({count}), which is no image'
        for (topic, kind), count in sorted(topics.items())
        if topic in chosen and kind not in IMAGES and count
    ]
    if named:
        return words
    counts = _image_counts(topics)
    standing = representatives(
        {t: counts[t] for t in _pictures(topics, without, forms)}, _raw(topics)
    )
    for topic in sorted(counts.keys() - chosen - set(without)):
        form = forms.get(topic, '')
        reason = refusal(topic, form) or set_aside(topic, form)
        if not reason and topic in standing:
            reason = f'shows the same camera as {standing[topic]}: name it to take it instead'
        words.append(f'{topic} is left out: it {reason or "has no messages"}')
    bases = {split_transport(topic, raw=False)[0] for topic in chosen}
    return words + [
        f'{topic} is left out: pictures as {kind} are not read, republish them raw'
        for (topic, kind), count in sorted(topics.items())
        if count
        and kind not in IMAGES
        and is_unread(kind)
        and split_transport(topic, raw=False)[0] not in bases
    ]


def _as_recorded(topics: Topics, topic: str) -> str:
    """Return the topic, or a compressed form of it where only that was recorded."""
    counts = _image_counts(topics)
    if topic in {name for name, _ in topics} - counts.keys():
        return topic
    forms = (topic, *(f'{topic}/{transport}' for transport in TRANSPORTS[1:]))
    return next((form for form in forms if counts.get(form)), topic)


def listing(topics: Topics) -> str:
    """Return the topics in words."""
    rows = [f'{topic} ({kind}, {count})' for (topic, kind), count in sorted(topics.items())]
    return ', '.join(rows) or 'nothing'


def _image_counts(topics: Topics) -> dict[str, int]:
    """Return the number of image messages by topic, of either type."""
    counts: dict[str, int] = {}
    for (topic, kind), count in topics.items():
        if kind in IMAGES:
            counts[topic] = counts.get(topic, 0) + count
    return counts


def _raw(topics: Topics) -> list[str]:
    return [topic for topic, kind in topics if kind == RAW]


def _pictures(topics: Topics, without: Collection[str], forms: Mapping[str, str]) -> list[str]:
    """Return the image topics that hold pictures, by their forms, and messages where any does."""
    counts = _image_counts(topics)
    pictures = [
        topic
        for topic in counts
        if topic not in without
        and not refusal(topic, forms.get(topic, ''))
        and not set_aside(topic, forms.get(topic, ''))
    ]
    return [topic for topic in pictures if counts[topic]] or pictures


def _all_cameras(topics: Topics, without: Collection[str], forms: Mapping[str, str]) -> list[str]:
    counts = _image_counts(topics)
    pictures = {topic: counts[topic] for topic in _pictures(topics, without, forms)}
    return sorted(set(representatives(pictures, _raw(topics)).values()))


def _image_type(
    topics: Topics, topic: str, form: str, problems: Problems
) -> tuple[str, int] | None:
    """Return a topic's message type and count; None, with a problem, when it holds no pictures."""
    types = {kind: count for (name, kind), count in topics.items() if name == topic}
    if not types:
        raise ConfigError(f'the bag has no topic {topic}; it holds {listing(topics)}')
    images = {kind: types[kind] for kind in IMAGES if kind in types}
    reason = refusal(topic, form)
    if images and not reason:
        return max(images, key=lambda kind: images[kind]), sum(images.values())
    text = (
        f'topic {topic} {reason}'
        if images
        else (
            f'topic {topic} holds {", ".join(types)}, which is no image: choose topics of '
            f'{" or ".join(IMAGES)}'
        )
    )
    problems.meet(Problem(kinds.MESSAGE_TYPE, topic, text))
    return None


def _names(given: Mapping[str, str], topics: Topics) -> dict[str, str]:
    """Return camera names by topic: those given, else made from the topics, '' for a single."""
    if len(given) == 1:
        return dict(given)
    names = {topic: name or camera_name(topic) for topic, name in given.items()}
    counts = Counter(names.values())
    raw = _raw(topics)
    for topic, name in names.items():
        if counts[name] > 1 and not given[topic]:
            names[topic] = split_transport(topic, topic in raw)[0].strip('/')
    if len(set(names.values())) < len(names):
        raise ConfigError(
            f'topics {", ".join(given)} give cameras of the same name: name them, as in '
            '--topics front=/a/image left=/b/image'
        )
    return names


def camera_name(topic: str) -> str:
    """Return 'front' for /front/image_raw and for /front/image_raw/compressed."""
    parts = split_transport(topic, raw=False)[0].strip('/').split('/')
    if len(parts) > 1 and parts[-1].startswith('image'):
        parts = parts[:-1]
    return '/'.join(parts)


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
