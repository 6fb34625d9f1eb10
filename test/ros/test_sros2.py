# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy allows the node what it uses in a real graph, and others no more than that."""

import uuid
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy', reason='needs ROS 2')

POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'road_anomaly.policy.xml'
# Of other parameters and packages: transports, tf, vision_msgs; a clock, which rclpy hears itself.
NOT_HERE = {
    'subscribe': {
        '/image/compressed', '/image/ffmpeg', '/image/foxglove', '/clock', '/parameter_events',
        '/tf', '/tf_static',
    },
    'publish': {
        '/road_anomaly/label_info', '/road_anomaly/mask_info', '/road_anomaly/obstacles',
        '/road_anomaly/open_set_label_info',
    },
    'reply': {'/road_anomaly/get_type_description'},
}  # fmt: skip


def allowed(node, permission):
    """Return the full names that the policy allows a node in the root namespace."""
    (profile,) = ElementTree.parse(POLICY).findall(f'.//profile[@node="{node}"]')
    names = {
        item.text
        for rule in profile
        if rule.get(permission) == 'ALLOW'
        for item in rule
    }  # fmt: skip
    return {
        f'/{node}/{name[2:]}' if name.startswith('~/') else f'/{name.lstrip("/")}'
        for name in names
    }


@pytest.fixture
def used(rig):
    """What the node publishes, subscribes and serves, with all that parameters add."""
    values = {'attitude__source': 'imu', 'camera__base_frame': 'base', 'output_scale': 0.5}
    values['lazy_subscription'] = False  # nobody listens here
    # a name of its own: a graph may still hold the node of the test before
    made = rig(remaps=[f'__node:=node_{uuid.uuid4().hex}'], **values)
    expected = {'/imu', '/image', '/camera_info', '/road_anomaly/scan', '/road_anomaly/surprisal'}
    made.wait(lambda: expected <= set().union(*in_graph(made.node).values()), 'its own graph')
    return in_graph(made.node)


def in_graph(node):
    """Return the names of a node's topics and services, by what it does with them."""
    asked = (node.get_name(), node.get_namespace())
    found = {
        'publish': node.get_publisher_names_and_types_by_node(*asked),
        'subscribe': node.get_subscriber_names_and_types_by_node(*asked),
        'reply': node.get_service_names_and_types_by_node(*asked),
        'request': node.get_client_names_and_types_by_node(*asked),
    }
    own = f'/{node.get_name()}/'
    return {
        permission: {name.replace(own, '/road_anomaly/') for name, _ in pairs}
        for permission, pairs in found.items()
    }


def test_the_policy_has_exactly_what_the_node_uses(used):
    for permission in ('publish', 'subscribe', 'reply', 'request'):
        policy, optional = allowed('road_anomaly', permission), NOT_HERE.get(permission, set())
        assert used[permission] <= policy, permission
        assert policy - used[permission] <= optional, permission


def test_nothing_is_allowed_by_a_pattern():
    names = [
        item.text for item in ElementTree.parse(POLICY).iter() if item.tag in ('topic', 'service')
    ]
    assert not [name for name in names if set(name) & set('*?[')]


def test_readers_change_nothing_and_operators_speak_to_the_node_alone(used):
    own = {'/parameter_events', '/rosout'}
    assert allowed('reader', 'publish') == allowed('operator', 'publish') == own
    assert not allowed('reader', 'request')
    assert allowed('reader', 'subscribe') <= used['publish'] | NOT_HERE['publish'] | {'/clock'}
    assert allowed('operator', 'request') == allowed('road_anomaly', 'reply')
