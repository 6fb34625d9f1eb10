# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A node under test in a real DDS graph, beside a peer that publishes, listens and asks."""

import array
import threading
import time
from typing import ClassVar

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from domains import isolate
from limits import WAIT
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from ood_perception.engines.base import Engine
from ood_perception.ros import model
from ood_perception.ros.qos import (
    chosen_reliability,
    input_profile,
    latched_profile,
    output_profile,
)
from ood_perception.types import EngineOutput

FRAME_ID = 'front_optical'


class FakeEngine(Engine):
    """
    Surprisal 3 where the image is red, 0.5 elsewhere; every pixel of class 0; tests steer it.

    gate: while clear, runs wait. error: raised by the next run.
    """

    made: ClassVar[list['FakeEngine']] = []

    def __init__(self, bundle, options):
        super().__init__(bundle.manifest, options)
        self.gate = threading.Event()
        self.gate.set()
        self.batches, self.chosen, self.error, self.closed = [], [], None, False
        FakeEngine.made.append(self)

    @property
    def compiled_classes(self):
        return self.options.compiled_classes or self.manifest.heads[0].compiled_classes

    @property
    def description(self):
        return {'runtime': 'fake', 'precision': 'f32'}

    def _run(self, image, in_distribution):
        assert not self.closed, 'run after close'
        self.batches.append(len(image))
        self.chosen.append(in_distribution.tolist())
        assert self.gate.wait(WAIT)
        if self.error:
            error, self.error = self.error, None
            raise error
        spec, factor = self.manifest.input, self.manifest.heads[0].upsampling
        rows = np.arange(spec.height // spec.patch * factor) * spec.patch // factor
        columns = np.arange(spec.width // spec.patch * factor) * spec.patch // factor
        cells = image[:, rows][:, :, columns]
        red = (cells[..., 0] > 128) & (cells[..., 1] < 64)
        surprisal = np.where(red, np.float32(3), np.float32(0.5))
        return EngineOutput(surprisal, np.zeros(red.shape, np.uint8), {})

    def close(self):
        self.closed = True


def photo(height=96, width=128, red=True):
    """Grey, with a red block in the middle."""
    image = np.full((height, width, 3), 120, np.uint8)
    if red:
        image[height // 3 : height // 2, width // 3 : width // 2] = (250, 10, 10)
    return image


def image_message(pixels, stamp, encoding='rgb8'):
    message = Image(encoding=encoding, height=pixels.shape[0], width=pixels.shape[1])
    message.step = pixels[0].nbytes
    message.data = array.array('B', pixels.tobytes())
    return stamped(message, stamp)


def stamped(message, stamp):
    message.header.frame_id = FRAME_ID
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    return message


def settled(reader, publisher):
    """
    Tell whether exactly one subscription of the node hears the publisher, and will do so.

    While the node changes to another reliability, a frame may be lost, or come twice.
    """
    subscription = reader._images
    if subscription is None:  # nobody listens yet
        return False
    wanted = chosen_reliability(reader._setting, reader.publishers())
    return (
        subscription.qos_profile.reliability.name.lower() == wanted
        and subscription.get_publisher_count() > 0
        and publisher.get_subscription_count() == 1
    )


class Rig:
    """Node and peer on one executor thread. Use as a context manager."""

    def __init__(self, remaps=(), **values):
        from ood_perception.ros.lifecycle_node import RoadAnomalyNode

        FakeEngine.made.clear()
        overrides = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
        arguments = ['--ros-args', *(word for rule in remaps for word in ('-r', rule))]
        rclpy.init(args=[])
        try:
            self.node = RoadAnomalyNode(parameter_overrides=overrides, cli_args=arguments)
        except BaseException:
            rclpy.try_shutdown()  # the next test has a graph of its own
            raise
        self.peer = Node('peer')
        self.heard = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self.peer)
        self._stop = False
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self._statuses = {}
        self._count = 0
        self.peer.create_subscription(DiagnosticArray, '/diagnostics', self._keep, 10)

    def _spin(self):
        while not self._stop:
            self._executor.spin_once(timeout_sec=0.05)

    def _keep(self, message):
        for status in message.status:
            self._statuses[status.name.split(': ', 1)[1]] = status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for engine in FakeEngine.made:
            engine.gate.set()
        self._stop = True
        self._thread.join()
        self.node.destroy_node()
        self.peer.destroy_node()
        rclpy.try_shutdown()

    @property
    def engine(self):
        return FakeEngine.made[-1]

    def start(self):
        assert self.node.autostart(), self.node.start_error
        return self

    def listen(self, name, kind, latched=False):
        """Subscribe to '~/name'; return the list that fills, once the node has noticed."""
        heard = self.heard[name] = []
        profile = latched_profile() if latched else output_profile()
        if name.startswith('debug/'):
            profile = input_profile('best_effort')
        profile.depth = 1 if latched else 100  # lose nothing between two spins
        topic = f'/road_anomaly/{name}'
        self.peer.create_subscription(kind, topic, heard.append, profile)
        self.wait(lambda: self.peer.count_publishers(topic), f'publisher of {topic}')
        outputs = self.node.session._outputs
        owner = next((c for c in outputs if c and name.startswith(f'{c}/')), '')
        short = name.removeprefix(f'{owner}/')
        self.wait(lambda: short in outputs[owner].subscribed(), f'demand of {topic}')
        return heard

    def camera(self, topic='image', kind=Image, reliability='best_effort'):
        """Return a publisher that the node listens to, in agreement with its reliability."""
        publisher = self.peer.create_publisher(kind, topic, input_profile(reliability))
        inputs = self.node.session._inputs.values()
        (reader,) = (one for one in inputs if one.topic == publisher.topic_name)
        self.wait(lambda: settled(reader, publisher), f'subscription to {topic}')
        return publisher

    def send(self, publisher, pixels=None, message=None, encoding='rgb8'):
        """Publish a frame; return its stamp."""
        self._count += 1
        stamp = (100, self._count)
        if message is None:
            message = image_message(photo() if pixels is None else pixels, stamp, encoding)
        publisher.publish(stamped(message, stamp))
        return stamp

    def on_executor(self, function, *args, **values):
        """
        Call a function on the executor's thread; return its result.

        What destroys a publisher or subscription belongs there: from another thread its events may
        go while the executor adds them to what it waits for, which ends that thread, and nothing
        is heard any more.
        """
        task = self._executor.create_task(function, *args, **values)
        self.wait(task.done, f'{function.__name__} on the executor')
        return task.result()

    def destroy(self, entity):
        """Destroy a publisher or subscription of the peer."""
        is_publisher = entity in self.peer.publishers
        one = self.peer.destroy_publisher if is_publisher else self.peer.destroy_subscription
        self.on_executor(one, entity)

    def counters(self, camera=''):
        reports = self.node.session.queue.reports()
        return next(r.counters for r in reports if r.name == camera)

    def wait(self, condition, what, seconds=WAIT):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f'waited {seconds} s for {what}'
            time.sleep(0.005)

    def wait_counter(self, name, value, camera=''):
        self.wait(
            lambda: getattr(self.counters(camera), name) >= value,
            f'{name} = {value}',
        )

    def status(self, name, condition):
        """Return (level, message, values) of a diagnostic status once it meets the condition."""

        def read():
            status = self._statuses.get(name)
            if status is None:
                return None
            return status.level, status.message, {p.key: p.value for p in status.values}

        self.wait(lambda: (got := read()) is not None and condition(got), f'status {name}')
        return read()

    def enable(self, value):
        """Call ~/enable; return the response."""
        client = client_of(self.peer, SetBool, '/road_anomaly/enable')
        future = client.call_async(SetBool.Request(data=value))
        self.wait(future.done, 'the response')
        return future.result()

    def set(self, **values):
        """Set parameters as ros2 param set does; return the result."""
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
        return self.node.set_parameters_atomically(parameters)


def client_of(node, kind, name):
    """
    Return a client whose server was found.

    A client that misses a server is made again: discovery is slow on busy cores.
    """
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        client = node.create_client(kind, name)
        if client.wait_for_service(WAIT / 10):
            return client
        node.destroy_client(client)
    found = sorted(one for one, _ in node.get_service_names_and_types())
    raise AssertionError(f'no server of {name} in {WAIT} s, in the graph are {found}')


def use_fake_engine(monkeypatch):
    monkeypatch.setattr(model, 'create_engine', FakeEngine)


__all__ = [
    'CompressedImage',
    'FakeEngine',
    'Rig',
    'client_of',
    'image_message',
    'isolate',
    'photo',
]
