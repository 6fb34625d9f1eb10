# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fewer messages than metadata.yaml or a file's own statistics promise, in words."""

from __future__ import annotations

from collections.abc import Mapping

from .metadata import BagFiles
from .storage import Counts, StorageFile


def fewer_in_the_file(storage: StorageFile) -> str:
    """Return what a file's statistics promise beyond what it holds, '' for nothing."""
    return _shortage('its statistics promise', _by_topic(storage.promised), storage.topics)


def fewer_in_the_bag(files: BagFiles, topics: Counts) -> str:
    """Return what metadata.yaml promises beyond what the files hold, '' for nothing."""
    by_topic = _shortage('metadata.yaml promises', files.promised, topics)
    found = sum(topics.values())
    if by_topic or files.messages is None or files.messages <= found:
        return by_topic
    return f'metadata.yaml promises {files.messages} messages, {found} are there{_REMEDY}'


_REMEDY = ': copy the recording again, or make metadata.yaml again with ros2 bag reindex'


def _shortage(who: str, promised: Mapping[str, int], topics: Counts) -> str:
    found = _by_topic(topics)
    short = [
        f'{count} messages of {topic}, {found.get(topic, 0)} are there'
        for topic, count in sorted(promised.items())
        if count > found.get(topic, 0)
    ]
    return f'{who} {"; ".join(short)}{_REMEDY}' if short else ''


def _by_topic(counts: Counts) -> dict[str, int]:
    found: dict[str, int] = {}
    for (topic, _), count in counts.items():
        found[topic] = found.get(topic, 0) + count
    return found
