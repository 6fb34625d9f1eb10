# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS graph of the test process's own, whatever else runs on the machine at the same time."""

import os
import socket
from functools import cache

LAST = 99  # the ports of higher domains may be handed to any other program
_marks = []


def isolate(environ, anew=False):
    """
    Keep the graphs of this test process apart from all others, of other machines too.

    anew: in a domain that no earlier test of the process used either. What such a test left in the
    graph, a server half gone for one, would stay there for minutes.
    """
    environ['ROS_DOMAIN_ID'] = str(_free_domain() if anew else _own_domain())
    environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


@cache
def _own_domain():
    return _free_domain()


def _free_domain():
    """
    Return a domain (1 to 99) that is this process's alone until it ends.

    DDS uses UDP ports, numbered by domain; the TCP port of the same number is the mark by which
    test processes know each other. A domain whose UDP port is in use is somebody else's graph.
    """
    for step in range(LAST):
        domain = 1 + (os.getpid() + step) % LAST
        port = 7400 + 250 * domain
        try:
            _bound(socket.SOCK_DGRAM, port + 10).close()  # where its first participant listens
            _marks.append(_bound(socket.SOCK_STREAM, port))
        except OSError:
            continue
        return domain
    raise RuntimeError(f'all ROS domains from 1 to {LAST} are in use on this machine')


def _bound(kind, port):
    """Return a socket that holds the port; OSError where another process does."""
    held = socket.socket(socket.AF_INET, kind)
    try:
        held.bind(('127.0.0.1', port))
    except OSError:
        held.close()
        raise
    return held
