# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures out of videos, camera devices and ROS 2 bags, for the demo."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.errors import ConfigError, DataError, DependencyError, OodPerceptionError
from ood_perception.types import UInt8Array

_RAW = ('sensor_msgs/msg/Image', 'sensor_msgs/Image')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_COMPRESSED = ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/CompressedImage')


def is_bag(path: Path) -> bool:
    """Return whether a path is a ROS 2 bag: a folder with metadata.yaml, or a storage file."""
    if path.is_dir():
        return (path / 'metadata.yaml').is_file() or bool(_storage_files(path))
    return path.suffix.lower() in ('.mcap', '.db3')


def video(path: Path, limit: int) -> Iterator[UInt8Array]:
    """Yield at most `limit` frames, uint8 (H, W, 3) RGB, spread over a video file."""
    capture = _opened(str(path), f'video {path}', 'its codec may be missing: convert it to H.264')
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    step = max(1, count // limit)
    return _grab(capture, f'video {path}', limit, step)


def camera(device: str, limit: int) -> Iterator[UInt8Array]:
    """Yield `limit` frames, uint8 (H, W, 3) RGB, of a camera device (/dev/video0 or 0)."""
    if device.startswith('/dev/') and not Path(device).exists():
        raise ConfigError(f'camera {device} does not exist: is it plugged in? (ls /dev/video*)')
    name: str | int = int(device) if device.isdigit() else device
    capture = _opened(name, f'camera {device}', 'is another program using it, may you read it?')
    return _grab(capture, f'camera {device}', limit, step=1)


def bag(path: Path, limit: int) -> Iterator[UInt8Array]:
    """
    Yield at most `limit` pictures, uint8 (H, W, 3) RGB, spread over a bag's first image topic.

    Raises DependencyError without rosbags, DataError for a bag that cannot be read.
    """
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        raise DependencyError(
            f"reading {path} needs rosbags: pip install 'ood_perception[bags]'"
        ) from error
    return _bag_pictures(AnyReader, path, limit)


def _bag_pictures(reader_class: Any, path: Path, limit: int) -> Iterator[UInt8Array]:
    # rosbags' default message definitions serve bags that carry none themselves.
    from rosbags.typesys import Stores, get_typestore

    # The decoder of the node's own messages; it knows no ROS library either.
    from ood_perception.ros.decode import decode_compressed, decode_image

    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        paths = (
            [path]
            if path.is_file() or (path / 'metadata.yaml').is_file()
            else _storage_files(path)
        )
        with reader_class(paths, default_typestore=store) as reader:
            connection = _image_connection(reader, path)
            raw = connection.msgtype in _RAW
            decode = decode_image if raw else decode_compressed
            kind = (_RAW if raw else _COMPRESSED)[0]
            step = max(1, connection.msgcount // limit)
            messages = enumerate(reader.messages(connections=[connection]))
            wanted = (item for number, item in messages if number % step == 0)
            for _, (_, _, data) in zip(range(limit), wanted, strict=False):
                yield decode(store.deserialize_cdr(_plain(data), kind))
    except OodPerceptionError:
        raise
    except Exception as error:  # rosbags raises classes of its storage and compression libraries
        raise DataError(f'bag {path} cannot be read: {error}') from error


def _image_connection(reader: Any, path: Path) -> Any:
    """Return the image connection with the most messages; DataError without any."""
    found = [c for c in reader.connections if c.msgtype in (*_RAW, *_COMPRESSED) and c.msgcount]
    if not found:
        topics = ', '.join(sorted({f'{c.topic} ({c.msgtype})' for c in reader.connections}))
        raise DataError(f'bag {path} has no image topic, only {topics or "nothing"}')
    return max(found, key=lambda connection: connection.msgcount)


def _plain(data: bytes) -> bytes:
    """
    Return a message's bytes, unpacked where each message was compressed by itself.

    rosbag2 names that compression in metadata.yaml alone; a storage file that lost it still
    shows it by the first bytes, which no CDR message has.
    """
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    for name in ('compression.zstd', 'backports.zstd'):  # Python 3.14's own, and its backport
        with suppress(ImportError):
            return bytes(importlib.import_module(name).decompress(data))
    try:
        zstandard = importlib.import_module('zstandard')
    except ImportError as error:
        raise DependencyError(
            'the messages of this bag are zstd-compressed: pip install backports.zstd'
        ) from error
    return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data))


def _storage_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ('.mcap', '.db3'))


def _opened(name: str | int, what: str, remedy: str) -> Any:
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        raise DataError(f'{what} cannot be opened: {remedy}')
    return capture


def _grab(capture: Any, what: str, limit: int, step: int) -> Iterator[UInt8Array]:
    """Yield every `step`-th frame until there are `limit`; DataError when there is none."""
    count = 0
    try:
        while count < limit:
            fine, picture = capture.read()
            if not fine:
                break
            count += 1
            yield np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)
            for _ in range(step - 1):
                capture.grab()
    finally:
        capture.release()
    if not count:
        raise DataError(f'{what} gave no frame: it is empty or cannot be decoded')
