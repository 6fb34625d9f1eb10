# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which of a bag's topics are cameras, and what each camera is called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...encodings import COMPRESSED as COMPRESSED
from ...encodings import IMAGE_TYPES
from ...encodings import RAW as RAW
from ...errors import ConfigError, DataError
from . import problems as kinds
from .problems import Problem, Problems

IMAGES = IMAGE_TYPES
_COMPRESSED_ENDING = '/compressed'
_DEPTH_ENDING = '/compressedDepth'
Topics = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class CameraTopic:
    """
    A camera of the bag.

    camera: its name, '' for a single one, as the node's parameter `cameras`.
    msgtype: one of encodings.IMAGE_TYPES. count: its messages by the bag's index.
    """

    camera: str
    topic: str
    msgtype: str
    count: int


def parse_topics(option: str, entries: Sequence[str]) -> dict[str, str]:
    """Return {topic: camera name or ''} for entries 'topic' or 'name=topic'; ConfigError."""
    topics: dict[str, str] = {}
    for entry in entries:
        name, equals, topic = entry.rpartition('=')
        if not topic.startswith('/') or (equals and not name) or topic in topics:
            raise ConfigError(
                f'{option} {entry!r}: give each topic once, from the root, as /camera/image_raw '
                'or front=/camera/image_raw'
            )
        topics[topic] = name
    return topics


def choose_cameras(
    topics: Topics, wanted: Sequence[str], without: Collection[str], problems: Problems
) -> tuple[CameraTopic, ...]:
    """
    Return the cameras to evaluate, sorted by topic.

    wanted: as parse_topics takes them, with or without /compressed; () = every image topic but
    those of `without` (ground truth), depth, and compressed twins of raw topics.
    Raises DataError when no image topic is left, naming what the bag holds; ConfigError for a
    topic that the bag lacks and for names that do not fit.
    """
    named = parse_topics('--topics', wanted)
    found: dict[str, tuple[str, int]] = {}
    named = {_as_recorded(topics, topic): name for topic, name in named.items()}
    for topic in named or _all_images(topics, without):
        kind_and_count = _image_type(topics, topic, problems)
        if kind_and_count is not None:
            found[topic] = kind_and_count
    if not found:
        raise DataError(f'no image topic can be evaluated: the bag holds {listing(topics)}')
    names = _names({topic: named.get(topic, '') for topic in sorted(found)})
    return tuple(CameraTopic(names[topic], topic, *found[topic]) for topic in sorted(found))


def _as_recorded(topics: Topics, topic: str) -> str:
    """Return the topic, or its compressed twin where only that was recorded."""
    known = {name for name, _ in topics}
    twin = topic + _COMPRESSED_ENDING
    return twin if topic not in known and twin in known else topic


def listing(topics: Topics) -> str:
    """Return the topics in words."""
    rows = [f'{topic} ({kind}, {count})' for (topic, kind), count in sorted(topics.items())]
    return ', '.join(rows) or 'nothing'


def _all_images(topics: Topics, without: Collection[str]) -> list[str]:
    raw = {topic for topic, kind in topics if kind == RAW}
    return [
        topic
        for topic, kind in topics
        if kind in IMAGES
        and topic not in without
        and not topic.endswith(_DEPTH_ENDING)
        and not (kind == COMPRESSED and topic.removesuffix(_COMPRESSED_ENDING) in raw)
    ]


def _image_type(topics: Topics, topic: str, problems: Problems) -> tuple[str, int] | None:
    """Return a topic's message type and count; None, with a problem, when it is no image."""
    types = {kind: count for (name, kind), count in topics.items() if name == topic}
    if not types:
        raise ConfigError(f'the bag has no topic {topic}; it holds {listing(topics)}')
    images = [kind for kind in types if kind in IMAGES]
    if len(images) == 1:
        return images[0], types[images[0]]
    text = (
        f'topic {topic} holds {", ".join(types)}, which is no image: choose topics of '
        f'{" or ".join(IMAGES)}'
    )
    problems.meet(Problem(kinds.MESSAGE_TYPE, topic, text))
    return None


def _names(given: Mapping[str, str]) -> dict[str, str]:
    """Return camera names by topic: those given, else made from the topics, '' for a single."""
    if len(given) == 1:
        return dict(given)
    names = {topic: name or camera_name(topic) for topic, name in given.items()}
    if len(set(names.values())) < len(names):
        raise ConfigError(
            f'topics {", ".join(given)} give cameras of the same name: name them, as in '
            '--topics front=/a/image left=/b/image'
        )
    return names


def camera_name(topic: str) -> str:
    """Return 'front' for /front/image_raw and for /front/image_raw/compressed."""
    parts = topic.removesuffix(_COMPRESSED_ENDING).strip('/').split('/')
    if len(parts) > 1 and parts[-1].startswith('image'):
        parts = parts[:-1]
    return '/'.join(parts)
