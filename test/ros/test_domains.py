# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Test processes that run at once never share a ROS graph."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import domains
from limits import HANGS

OWNER = """
import os, domains
os.getpid = lambda: 7  # all begin their search at the same place
environment = {}
domains.isolate(environment)
print(environment['ROS_DOMAIN_ID'], environment['ROS_AUTOMATIC_DISCOVERY_RANGE'], flush=True)
input()
"""


def test_processes_at_once_have_domains_of_their_own():
    owners = [
        subprocess.Popen(
            [sys.executable, '-c', OWNER], cwd=Path(domains.__file__).parent, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = [owner.stdout.readline().split() for owner in owners]
    for owner in owners:
        owner.communicate('\n', timeout=HANGS)
    assert len({number for number, _ in said}) == 3
    assert {reach for _, reach in said} == {'LOCALHOST'}
    assert all(1 <= int(number) <= 99 for number, _ in said)
    assert os.environ['ROS_DOMAIN_ID'] not in {number for number, _ in said}


def test_somebody_elses_graph_is_left_alone(monkeypatch):
    own = domains._own_domain.__wrapped__  # asked anew, not remembered
    monkeypatch.setattr(domains, '_marks', [])
    first = own()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        domains._marks.pop().close()
        participant.bind(('0.0.0.0', 7400 + 250 * first + 10))
        second = own()
        domains._marks.pop().close()
    assert second != first
