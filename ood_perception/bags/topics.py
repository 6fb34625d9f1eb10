# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which of a bag's topics are cameras, and what each camera is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ood_perception.errors import ConfigError, DataError
from ood_perception.image.encodings import IMAGE_TYPES, RAW

from . import problems as kinds
from .pictures import TRANSPORTS, is_unread, refusal, representatives, set_aside, split_transport
from .problems import Problem, Problems

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
