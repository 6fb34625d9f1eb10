# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file of the live evaluation: node and comparison see the same bag and parameters."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import ROOT, VARIABLES, describe, nodes

__all__ = ['nodes']  # the fixture
BUNDLE = str(ROOT)  # a folder that is there: launching looks no deeper
GIVEN = {'bag': '/data/drive', 'out': '/tmp/live', 'cameras': 'front=/f/image_raw,left=/l/image'}


def launched(nodes, **arguments):
    """Return the arguments of node and comparison, and the context."""
    context = describe('evaluate_bag.launch.py', **{**GIVEN, **arguments})
    node, comparison = nodes
    return node, comparison, context


def test_the_node_runs_on_the_bags_time_with_these_cameras(nodes):
    node, comparison, context = launched(nodes, transport='compressed', bundle=BUNDLE)
    assert node['executable'] == 'road_anomaly_node'
    assert node['parameters'][1] == {
        'use_sim_time': True, 'autostart': True, 'bundle': BUNDLE,
        'transport': 'compressed', 'cameras': ['front', 'left'],
    }  # fmt: skip
    assert dict(node['remappings'])['left/image'] == '/l/image'
    assert (comparison['package'], comparison['executable']) == (
        'ood_perception', 'live_comparison',
    )  # fmt: skip
    for variable in VARIABLES:
        assert Path(context.environment[variable]) == ROOT / 'config' / 'dds_large_images.xml'


def test_the_offline_evaluation_sees_what_the_node_sees(nodes):
    node, comparison, _ = launched(nodes, bundle=BUNDLE, rate='0.5', precision='f32')
    words = comparison['arguments']
    before, evaluate = words[: words.index('--evaluate')], words[words.index('--evaluate') + 1 :]
    assert before == [
        '/data/drive', '--offline', '/tmp/live/offline', '--out', '/tmp/live',
        '--rate', '0.5', '--player', 'own', '--transport', 'raw',
    ]  # fmt: skip
    assert evaluate == [
        '--params', node['parameters'][0], '--bundle', BUNDLE, '--precision', 'f32',
        '--topics', 'front=/f/image_raw', 'left=/l/image',
    ]  # fmt: skip


def test_the_words_are_understood(nodes):
    """By the programs' own parsers: an option that does not exist would end the launch."""
    pytest.importorskip('rclpy')
    from ood_perception.cli.evaluate_bag import _parser as offline_parser
    from ood_perception.ros.tools.live_comparison import _parser as live_parser

    words = launched(nodes, engine='openvino', player='ros2')[1]['arguments']
    live = live_parser().parse_args(words)
    assert (live.player, str(live.bag)) == ('ros2', '/data/drive')
    offline = offline_parser().parse_args(['/data/drive', *live.evaluate])
    assert offline.topics == ['front=/f/image_raw', 'left=/l/image']
    assert offline.engine == 'openvino'


def test_compressed_topics_are_named_as_recorded(nodes):
    words = launched(nodes, transport='compressed', cameras='/f/image_raw')[1]['arguments']
    assert words[-2:] == ['--topics', '/f/image_raw/compressed']


def test_an_earlier_offline_result_is_taken(nodes):
    words = launched(nodes, offline='/data/offline')[1]['arguments']
    assert '--evaluate' not in words
    assert words[words.index('--offline') + 1] == '/data/offline'


def test_the_comparison_ends_the_launch_with_its_own_verdict(nodes):
    _, comparison, _ = launched(nodes)
    event, context = SimpleNamespace(process_name='live', returncode=0), SimpleNamespace()
    (action,) = comparison['on_exit'](event, context)
    assert type(action).__name__ == 'Shutdown'
    event.returncode, context.is_shutdown = 1, False
    with pytest.raises(RuntimeError, match='status 1'):
        comparison['on_exit'](event, context)


@pytest.mark.parametrize('missing', ['bag', 'cameras', 'out'])
def test_what_has_to_be_given_is_asked_for(nodes, missing):
    arguments = {name: value for name, value in GIVEN.items() if name != missing}
    with pytest.raises(RuntimeError, match=missing):
        describe('evaluate_bag.launch.py', **arguments)


def test_no_camera_is_refused(nodes):
    with pytest.raises(ValueError, match='cameras'):
        launched(nodes, cameras=' ')
