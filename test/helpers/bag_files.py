# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bags for the tests: written with rosbags, cut, damaged and compressed on purpose."""

import importlib
from pathlib import Path

import cv2
import numpy as np
from bundles import road_image

from ood_perception.bags.messages import VIDEO_MSGS

RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
FRONT, LEFT = '/front/image_raw', '/left/image_raw/compressed'
START = 1_700_000_000_000_000_000
# The log time is later than the stamp: whoever mixes them up is found out.
DELAY = 7_000_000


def zstd():
    for name in ('compression.zstd', 'backports.zstd'):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise AssertionError('rosbags brings a Zstandard library')


class Maker:
    """Makes messages as CDR."""

    def __init__(self):
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.store = get_typestore(Stores.ROS2_JAZZY)
        for name, text in VIDEO_MSGS.items():
            self.store.register(get_types_from_msg(text, name))

    def header(self, stamp, frame_id):
        time = self.store.types['builtin_interfaces/msg/Time']
        header = self.store.types['std_msgs/msg/Header']
        return header(stamp=time(*divmod(stamp, 10**9)), frame_id=frame_id)

    def raw(self, pixels, encoding, stamp, frame_id='front_optical', **fields):
        values = {
            'header': self.header(stamp, frame_id),
            'height': pixels.shape[0],
            'width': pixels.shape[1],
            'encoding': encoding,
            'is_bigendian': 0,
            'step': pixels[0].nbytes,
            'data': np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
            **fields,
        }
        return bytes(self.store.serialize_cdr(self.store.types[RAW](**values), RAW))

    def compressed(self, pixels, extension, stamp, frame_id='left_optical'):
        if isinstance(pixels, bytes):
            data = np.frombuffer(pixels, np.uint8)
        else:
            bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
            data = cv2.imencode(extension, bgr)[1].reshape(-1)
        message = self.store.types[COMPRESSED](
            header=self.header(stamp, frame_id), format=extension[1:], data=data
        )
        return bytes(self.store.serialize_cdr(message, COMPRESSED))

    def video(self, kind, data, codec, stamp, frame_id='lens'):
        """Return a packet in one of the three message types that carry videos."""
        header, name = self.header(stamp, frame_id), kind.rpartition('/')[2]
        data = np.frombuffer(data, np.uint8)
        fields = {
            'CompressedImage': {'header': header, 'format': codec},
            'CompressedVideo': {'timestamp': header.stamp, 'frame_id': frame_id, 'format': codec},
            'FFMPEGPacket': {
                'header': header, 'width': 128, 'height': 96, 'encoding': codec, 'pts': 0,
                'flags': 0, 'is_bigendian': False,
            },
        }[name]  # fmt: skip
        return bytes(self.store.serialize_cdr(self.store.types[kind](**fields, data=data), kind))

    def text(self, words='hello'):
        message = self.store.types['std_msgs/msg/String'](data=words)
        return bytes(self.store.serialize_cdr(message, 'std_msgs/msg/String'))


def write_bag(path, messages, storage='mcap', compression='none', version=9):
    """Write (topic, type, log time, CDR) tuples as a bag; return its folder."""
    from rosbags import rosbag2

    store, path = Maker().store, Path(path)
    writer = rosbag2.Writer(
        path, version=version, storage_plugin=getattr(rosbag2.StoragePlugin, storage.upper())
    )
    mode = getattr(rosbag2.CompressionMode, compression.upper())
    writer.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, time, data in messages:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic, kind], time, data)
    return path


def two_cameras(count=4, images=None):
    """Return the messages of two cameras, one raw and one JPEG; every second frame is odd."""
    maker, messages = Maker(), []
    for number in range(count):
        box = (60, 70, 24, 20) if number % 2 else None
        image = images[number] if images else road_image(96, 128, box, seed=number)
        stamp = START + number * 100_000_000
        messages.append((FRONT, RAW, stamp + DELAY, maker.raw(image, 'rgb8', stamp)))
        later = stamp + 30_000_000
        jpeg = maker.compressed(image, '.jpg', later)
        messages.append((LEFT, COMPRESSED, later + DELAY, jpeg))
    return messages


def storage_file(bag):
    """Return a bag's one storage file."""
    (file,) = [p for p in Path(bag).iterdir() if p.name != 'metadata.yaml']
    return file


def read_bag(path):
    """Return {topic: [(log time, message)]} of a result bag, read by rosbags."""
    from rosbags.highlevel import AnyReader

    found = {}
    with AnyReader([Path(path)]) as reader:
        for connection, time, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time, message))
    return found


def pixels(message):
    """Return the pixels of a mono8 or 32FC1 message."""
    kind = {'mono8': np.uint8, '32FC1': np.float32}[message.encoding]
    return message.data.view(kind).reshape(message.height, message.width)


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
