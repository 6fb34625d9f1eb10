# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Engines of one process share a compiled backbone, as long as one of them lives."""

import gc
import os
import threading

from limits import WAIT

from ood_perception.engines.cache import identity, shared


class Thing:
    """Something that can be held weakly."""


def test_the_second_gets_what_the_first_made_until_nobody_holds_it():
    made = []

    def make():
        made.append(0)
        return Thing()

    first = shared(('a', '1'), make)
    assert shared(('a', '1'), make) is first
    assert shared(('a', '2'), make) is not first
    assert len(made) == 2
    del first
    gc.collect()
    shared(('a', '1'), make)
    assert len(made) == 3


def test_two_at_once_make_one():
    entered, go, found = threading.Event(), threading.Event(), []

    def slow():
        entered.set()
        assert go.wait(WAIT)
        return Thing()

    threads = [
        threading.Thread(target=lambda: found.append(shared(('b',), slow))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(WAIT)
    go.set()
    for thread in threads:
        thread.join(WAIT)
    assert found[0] is found[1]


def test_other_weights_are_another_backbone(tmp_path):
    graph, data = tmp_path / 'b.onnx', tmp_path / 'b.data'
    graph.write_bytes(b'g')
    data.write_bytes(b'1234')
    before = identity(graph, 'b.data')

    assert identity(graph, 'b.data') == before
    data.write_bytes(b'4321')
    os.utime(data, ns=(1, 1))
    assert identity(graph, 'b.data') != before
