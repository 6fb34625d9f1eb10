# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The soak: overloaded on purpose, accounted for, and honest about what it finds."""

import os

import pytest

rclpy = pytest.importorskip('rclpy')

from bundles import write_tiny_bundle  # noqa: E402
from domains import isolate  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.ros.tools.soak import Memory, soak, verdict  # noqa: E402

pytestmark = pytest.mark.ros


def counted(**changes):
    flat = {'mib': 300.0, 'files': 20, 'threads': 20}
    result = {
        'counters': {
            'callbacks': 100, 'processed': 10, 'dropped': 90, 'bad': 0, 'failed': 0, 'skipped': 0
        },
        'memory': {'middle': flat, 'last': flat},
        'foreign_headers': 0,
        'received': {'mask': 10},
    }  # fmt: skip
    for name, value in changes.items():
        result[name] = {**result[name], **value} if isinstance(value, dict) else value
    return result


@pytest.mark.parametrize(
    ('changes', 'failed'),
    [
        ({}, set()),
        ({'counters': {'callbacks': 101}}, {'every_frame_accounted_for'}),
        ({'counters': {'failed': 1, 'dropped': 89}}, {'nothing_failed'}),
        ({'counters': {'dropped': 0, 'processed': 100}}, {'overloaded'}),
        ({'foreign_headers': 1}, {'headers_identical'}),
        ({'received': {'mask': 11}}, {'results_arrive'}),
        ({'memory': {'last': {'mib': 330, 'files': 20, 'threads': 20}}}, {'memory_flat'}),
        (
            {'memory': {'last': {'mib': 300, 'files': 21, 'threads': 20}}},
            {'no_file_or_thread_left_open'},
        ),
    ],
)
def test_each_demand_can_fail(changes, failed):
    assert {name for name, kept in verdict(counted(**changes)).items() if not kept} == failed


def test_too_few_samples_tell_nothing():
    with pytest.raises(ConfigError, match='--minutes'):
        Memory().summary()


@pytest.mark.slow
def test_a_short_soak_accounts_for_every_frame(tmp_path):
    isolate(os.environ)
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    result = soak(0.15, 10.0, {'bundle': str(bundle), 'engine': 'openvino'}, '128x96')
    kept = result['verdict']
    assert kept['overloaded']
    assert kept['every_frame_accounted_for']
    assert kept['nothing_failed']
    assert kept['headers_identical']
