# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which image topics hold pictures, and which of them show the same camera."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
