# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Nav2's files, each field against its layer's sources; what the layer makes of our messages."""

import costmap_model as nav2
import numpy as np
import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
yaml = pytest.importorskip('yaml')

from ranged_scenes import SCENE, SKY, THING, detection, view  # noqa: E402
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from ood_perception.parameters.table import BY_NAME  # noqa: E402
from ood_perception.postprocess.output_maps import IMAGES  # noqa: E402
from ood_perception.postprocess.tracking import Tracked  # noqa: E402
from ood_perception.ranging.ranges import ranged_detections  # noqa: E402
from ood_perception.ros import qos  # noqa: E402
from ood_perception.ros.outputs import INFOS, OUTPUTS  # noqa: E402
from ood_perception.ros.point_clouds import (  # noqa: E402
    RangeResult,
    contact_cloud,
    scan_message,
)
from ood_perception.types import MASK_NAMES  # noqa: E402

pytestmark = pytest.mark.ros
FILES = {'nav2_road.yaml': '/road_anomaly/', 'nav2_maritime.yaml': '/maritime_obstacle/'}


def costmap_of(file):
    tree = yaml.safe_load((ROOT / 'config' / file).read_text(encoding='utf-8'))
    return tree['local_costmap']['local_costmap']['ros__parameters']


def sources(layer):
    return {name: layer[name] for name in layer['observation_sources'].split()}


def layers(file, plugin):
    return [
        layer
        for layer in costmap_of(file).values()
        if isinstance(layer, dict) and layer['plugin'] == plugin['plugin']
    ]


def check(values, known, where, inner=()):
    """Every name is one that the layer reads, every value of its type."""
    for name, value in values.items():
        if name not in inner:
            assert name in known, f'{where} reads no {name}'
            assert type(value) is type(known[name]), f'{where}: {name}'


@pytest.mark.parametrize('file', FILES)
def test_every_field_is_one_that_its_layer_reads(file):
    costmap = costmap_of(file)
    inner = [name for name, value in costmap.items() if isinstance(value, dict)]
    check(costmap, nav2.COSTMAP, 'costmap', inner)
    assert set(costmap['plugins']) <= set(inner)
    for layer in layers(file, nav2.INFLATION_LAYER):
        check(layer, nav2.INFLATION_LAYER, 'inflation')
    for layer in layers(file, nav2.OBSTACLE_LAYER):
        check(layer, nav2.OBSTACLE_LAYER, 'obstacle layer', sources(layer))
        for name, source in sources(layer).items():
            check(source, nav2.OBSTACLE_SOURCE, name)
    for layer in layers(file, nav2.SEMANTIC_LAYER):
        check(layer, nav2.SEMANTIC_LAYER, 'semantic layer', sources(layer))
        for name, source in sources(layer).items():
            check(source, nav2.SEMANTIC_SOURCE, name, source['class_types'])
            for kind in source['class_types']:
                check(source[kind], nav2.SEMANTIC_CLASS, kind)
    known = sum(len(layers(file, plugin)) for plugin in PLUGINS)
    assert known == len(inner), 'every layer is checked'


@pytest.mark.parametrize('file', FILES)
def test_topics_are_ours_in_type_and_quality(file):
    """The layers listen best effort, to the LabelInfo reliably and transient local."""
    for layer in layers(file, nav2.OBSTACLE_LAYER):
        for source in sources(layer).values():
            output = OUTPUTS[source['topic'].removeprefix(FILES[file])]
            assert output.kind.__name__ == source['data_type']
    for layer in layers(file, nav2.SEMANTIC_LAYER):
        for source in sources(layer).values():
            image = source['segmentation_topic'].removeprefix(FILES[file])
            assert IMAGES[image].encoding == 'mono8'
            info = source['labels_topic'].removeprefix(FILES[file])
            assert (image, info) == ('mask', 'mask_info')
            assert info in INFOS
            assert not source['confidence_topic'], 'ours is of the anomaly, not of the label'
    assert qos.output_profile().reliability == ReliabilityPolicy.RELIABLE, 'suits best effort, too'
    latched = qos.latched_profile()
    assert latched.reliability == ReliabilityPolicy.RELIABLE
    assert latched.durability == DurabilityPolicy.TRANSIENT_LOCAL


@pytest.mark.parametrize('file', FILES)
def test_numbers_fit_the_node_and_each_other(file):
    costmap = costmap_of(file)
    reach, step = BY_NAME['scan.range_max'].default, BY_NAME['scan.increment'].default
    for layer in layers(file, nav2.OBSTACLE_LAYER):
        for source in sources(layer).values():
            ranges = [source['obstacle_max_range'], source.get('raytrace_max_range', 0.0)]
            assert max(ranges) <= min(costmap['width'], costmap['height']) / 2
            assert source['obstacle_max_range'] < reach, 'free is no wall'
            assert step * ranges[1] <= costmap['resolution'], 'no cell between two rays'


def test_the_semantic_layer_knows_every_value_of_the_mask():
    (layer,) = layers('nav2_road.yaml', nav2.SEMANTIC_LAYER)
    (source,) = sources(layer).values()
    costs = {
        name: source[kind] for kind in source['class_types'] for name in source[kind]['classes']
    }
    assert sorted(costs) == sorted(MASK_NAMES.values()), 'a name left out is an error of the layer'
    danger, unseen = costs['obstacle'], costs['not scored']
    assert danger['base_cost'] == danger['max_cost'] == nav2.LETHAL
    assert danger['max_cost'] > max(costs['normal']['max_cost'], unseen['max_cost']), 'it wins'
    assert unseen['base_cost'] == nav2.NO_INFORMATION
    seen = source['tile_map_decay_time'] * 1000
    assert unseen['samples_to_max_cost'] > seen, 'never becomes free by being looked at'
    assert costs['normal']['base_cost'] == costs['normal']['max_cost'] == nav2.FREE


PLUGINS = (nav2.OBSTACLE_LAYER, nav2.SEMANTIC_LAYER, nav2.INFLATION_LAYER)
HEIGHT = 0.5  # of base_link above the ground: points lie half a metre below it


def thing(labels):
    labels[24:32, 30:36] = THING
    labels[:16] = SKY


def result(found, **values):
    seen = view(0.2, base_height=HEIGHT)
    tracked = Tracked(found, ())
    return RangeResult(ranged_detections(found, SCENE, seen), seen, tracked, 'base_link', **values)


def updated(file, found, base=(0.0, 0.0, 0.0), without=(), **values):
    """Return what the file's layer makes of the node's messages for a detection."""
    costmap, (layer,) = costmap_of(file), layers(file, nav2.OBSTACLE_LAYER)
    for place, name in without:
        (layer[place] if place else layer).pop(name)
    made, header = result(found, **values), Header()
    points = np.asarray(xyz(contact_cloud(made, header)))
    model = nav2.ObstacleLayer(layer, costmap['width'], costmap['resolution'], base)
    return model, model.update({'contacts': points, 'scan': scan_message(made, header)}), points


def xyz(cloud):
    assert [field.name for field in cloud.fields[:3]] == ['x', 'y', 'z']
    floats = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    return np.ascontiguousarray(floats[:, :12]).view('<f4')


def lethal(cells):
    return {cell for cell, cost in cells.items() if cost == nav2.LETHAL}


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('base', [(0.0, 0.0, 0.0), (3.0, -7.0, -1.5), (3.0, -7.0, 1.5)])
def test_the_layer_marks_the_obstacle_and_frees_what_lies_before_it(file, base):
    model, cells, points = updated(file, detection(thing), base)
    assert len(points) == 6
    np.testing.assert_allclose(points[:, 2], -HEIGHT, atol=1e-6)
    assert {cells[cell] for cell in model.cells(points + base)} == {nav2.LETHAL}
    assert {cells[cell] for cell in model.cells(points / 2 + base)} == {nav2.FREE}, 'half way'
    near = {
        cell
        for dx in AROUND
        for dy in AROUND
        for cell in model.cells(points + base + np.array([dx, dy, 0.0]))
    }
    assert lethal(cells) <= near, 'nothing else, and no wall where the ground is free'


AROUND = (-0.5, 0.0, 0.5)


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize(
    'without',
    [
        [('', 'min_obstacle_height')],
        [('contacts', 'min_obstacle_height'), ('scan', 'min_obstacle_height')],
        [('contacts', 'obstacle_max_range'), ('scan', 'obstacle_max_range')],
    ],
)
def test_a_field_left_out_loses_the_obstacle(file, without):
    base = (0.0, 0.0, -0.2)
    assert lethal(updated(file, detection(thing), base)[1])
    assert not lethal(updated(file, detection(thing), base, without)[1])


@pytest.mark.parametrize('file', FILES)
def test_a_scan_without_its_upper_height_marks_and_frees_nothing_on_a_slope(file):
    cells = updated(file, detection(thing), (0.0, 0.0, 0.2), [('scan', 'max_obstacle_height')])[1]
    assert nav2.FREE not in cells.values()


@pytest.mark.parametrize('file', FILES)
def test_free_ground_is_freed_only_with_inf_and_is_a_wall_at_the_scans_own_end(file):
    empty = detection()
    assert set(updated(file, empty)[1].values()) == {nav2.FREE}
    assert not updated(file, empty, without=[('scan', 'inf_is_valid')])[1]
    assert lethal(updated(file, empty, range_max=15.0)[1]), 'range_max below obstacle_max_range'
