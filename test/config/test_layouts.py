# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every panel of every layout: topic, type, fields and QoS are those that the node publishes."""

import json
import re

import numpy as np
import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
yaml = pytest.importorskip('yaml')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.qos import (  # noqa: E402
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import (  # noqa: E402
    CompressedImage,
    Image,
    LaserScan,
    PointCloud2,
)
from std_msgs.msg import Float64, Header  # noqa: E402
from visualization_msgs.msg import ImageMarker, MarkerArray  # noqa: E402

from ood_perception.parameters.table import BY_NAME  # noqa: E402
from ood_perception.postprocess.image_score import Inspection  # noqa: E402
from ood_perception.ros import point_clouds, qos  # noqa: E402
from ood_perception.ros.messages import image_score_message  # noqa: E402
from ood_perception.ros.outputs import DEBUG_TOPICS, DRAWN, OUTPUTS  # noqa: E402

pytestmark = pytest.mark.ros
NODES = ('road_anomaly', 'maritime_obstacle')
CAMERA = '/camera/image_raw'
TOPICS = {CAMERA: Image, '/diagnostics': DiagnosticArray}
POINTS = {
    'obstacle_points': point_clouds.OBSTACLE_POINT.names,
    'contact_points': point_clouds.CONTACT_POINT.names,
    'edge_points': point_clouds.EDGE_POINT.names,
    'scan': ('range',),
}


def kind_of(topic, node):
    """Return the message class of a topic of the node, its camera or /diagnostics."""
    if topic in TOPICS:
        return TOPICS[topic]
    name = topic.removeprefix(f'/{node}/')
    assert name != topic, f'{topic} is not of {node}'
    if name.removeprefix('debug/') in DEBUG_TOPICS:
        return Float64
    return OUTPUTS[name].kind


def test_the_camera_is_the_one_that_the_readme_launches_with():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert f'road_anomaly.launch.py cameras:={CAMERA}' in readme


def rviz(node):
    tree = yaml.safe_load((ROOT / 'config' / f'{node}.rviz').read_text(encoding='utf-8'))
    return tree['Visualization Manager']


def displays(node):
    return [display for display in rviz(node)['Displays'] if 'Topic' in display]


# What the display plugins of rviz_default_plugins subscribe to.
RVIZ = {
    'rviz_default_plugins/Image': Image,
    'rviz_default_plugins/MarkerArray': MarkerArray,
    'rviz_default_plugins/PointCloud2': PointCloud2,
    'rviz_default_plugins/LaserScan': LaserScan,
}
POLICIES = {
    'Reliable': ReliabilityPolicy.RELIABLE,
    'Best Effort': ReliabilityPolicy.BEST_EFFORT,
    'Volatile': DurabilityPolicy.VOLATILE,
    'Transient Local': DurabilityPolicy.TRANSIENT_LOCAL,
}


@pytest.mark.parametrize('node', NODES)
def test_every_rviz_display_gets_what_its_plugin_reads(node):
    shown = {}
    for display in displays(node):
        topic = display['Topic']['Value']
        shown[topic.removeprefix(f'/{node}/')] = display['Class']
        assert kind_of(topic, node) is RVIZ[display['Class']], display['Name']
        asked = QoSProfile(
            depth=display['Topic']['Depth'],
            reliability=POLICIES[display['Topic']['Reliability Policy']],
            durability=POLICIES[display['Topic']['Durability Policy']],
        )
        offers = [qos.output_profile()]
        if topic == CAMERA:  # whatever the driver offers
            offers = [
                qos.input_profile(reliability) for reliability in ('reliable', 'best_effort')
            ]
        for offered in offers:
            compatible, reason = qos_check_compatible(offered, asked)
            assert compatible != QoSCompatibility.ERROR, f'{display["Name"]}: {reason}'
    images = {name for name, plugin in shown.items() if plugin == 'rviz_default_plugins/Image'}
    assert images <= {CAMERA, *DRAWN}, 'maps of numbers are black or grey to the eye'
    assert {CAMERA, 'overlay', 'mask_image'} <= images


@pytest.mark.parametrize('node', NODES)
def test_rviz_shows_points_in_the_frame_that_they_are_in(node):
    """Markers are in the image's own frame, which only its driver knows; points in base_link."""
    kinds = {display['Class'] for display in displays(node)}
    frame = rviz(node)['Global Options']['Fixed Frame']
    if 'rviz_default_plugins/PointCloud2' in kinds:
        assert frame == 'base_link'
        assert 'rviz_default_plugins/MarkerArray' not in kinds
    else:
        assert frame == 'camera_optical_frame'


def foxglove(node):
    return json.loads((ROOT / 'config' / f'foxglove_{node}.json').read_text(encoding='utf-8'))


def leaves(tree):
    if isinstance(tree, str):
        return [tree]
    return [*leaves(tree['first']), *leaves(tree['second'])]


def panels(node, kind):
    found = foxglove(node)['configById']
    return {name: panel for name, panel in found.items() if name.startswith(f'{kind}!')}


@pytest.mark.parametrize('node', NODES)
def test_every_panel_is_shown_once_and_is_of_a_kind_that_is_checked_here(node):
    layout = foxglove(node)
    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    kinds = {name.partition('!')[0] for name in layout['configById']}
    assert kinds == {'Image', '3D', 'Plot', 'DiagnosticSummary'}
    (health,) = panels(node, 'DiagnosticSummary').values()
    assert kind_of(health['topicToRender'], node) is DiagnosticArray


@pytest.mark.parametrize('node', NODES)
def test_image_panels_show_colours(node):
    shown = set()
    for panel in panels(node, 'Image').values():
        mode = panel['imageMode']
        topic = mode['imageTopic']
        assert kind_of(topic, node) in (Image, CompressedImage)
        shown.add(topic.removeprefix(f'/{node}/').removesuffix('/compressed'))
        assert set(mode) <= {'imageTopic', 'annotations'}, 'pixels need no CameraInfo'
        over = mode.get('annotations', {})
        drawn_over = {name for name, look in over.items() if look['visible']}
        assert all(kind_of(name, node) is ImageMarker for name in drawn_over)
        assert bool(drawn_over) == (topic == CAMERA), 'the camera shows no obstacles by itself'
    assert shown == {CAMERA, *DRAWN}


@pytest.mark.parametrize('node', NODES)
def test_points_are_coloured_by_a_field_that_they_have(node):
    (panel,) = panels(node, '3D').values()
    assert panel['followTf'] == 'base_link'
    assert {topic.removeprefix(f'/{node}/') for topic in panel['topics']} == set(POINTS)
    for topic, look in panel['topics'].items():
        name = topic.removeprefix(f'/{node}/')
        assert kind_of(topic, node) is (LaserScan if name == 'scan' else PointCloud2)
        assert look['colorField'] in POINTS[name], 'without one all is one dark colour'
        first, last = (int(color[1:7], 16) for color in look['gradient'])
        assert min(max(color.to_bytes(3, 'big')) for color in (first, last)) > 128, 'bright'


@pytest.mark.parametrize('node', NODES)
def test_plots_read_numbers_that_are_there(node):
    judged = image_score_message(Inspection(2.5, 0.5, 0.01), 0.0, 'node: image', Header())
    values = {pair.key: pair.value for pair in judged.status[0].values}
    for plot in panels(node, 'Plot').values():
        for path in plot['paths']:
            value = path['value']
            if path['label'] == 'target':
                assert float(value) == BY_NAME['false_alarm_rate'].default
                continue
            topic, _, field = value.partition('.')
            if field == 'data':
                assert kind_of(topic, node) is Float64
                continue
            assert kind_of(topic, node) is DiagnosticArray
            key = re.fullmatch(r'status\[0\]\.values\[:\]\{key=="(\w+)"\}\.value', field)[1]
            assert np.isfinite(float(values[key]))
