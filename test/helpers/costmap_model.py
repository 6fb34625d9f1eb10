# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What Nav2's layers take, and what its obstacle layer does with it, from their sources.

github.com/ros-navigation/navigation2, commit a3a97043 (2026-08), the same names and defaults in
its branches humble, jazzy and kilted: nav2_costmap_2d/src/costmap_2d_ros.cpp (getParameters),
plugins/obstacle_layer.cpp (onInitialize, laserScanValidInfCallback, updateBounds),
src/observation_buffer.cpp (bufferCloud), plugins/inflation_layer.cpp.
github.com/kiwicampus/semantic_segmentation_layer, commit a70cf6ec (2026-04), the same in its
branches humble and jazzy: src/semantic_segmentation_layer.cpp (onInitialize, updateBounds),
include/semantic_segmentation_layer/segmentation_buffer.hpp.

Each table holds a parameter's default; its type is the parameter's, ROS 2 takes no other.
"""

from dataclasses import dataclass

import numpy as np

COSTMAP = {
    'global_frame': 'map',
    'robot_base_frame': 'base_link',
    'rolling_window': False,
    'width': 5,
    'height': 5,
    'resolution': 0.1,
    'track_unknown_space': False,
    'transform_tolerance': 0.3,
    'update_frequency': 5.0,
    'publish_frequency': 1.0,
    'plugins': ['static_layer', 'obstacle_layer', 'inflation_layer'],
}
OBSTACLE_LAYER = {
    'plugin': 'nav2_costmap_2d::ObstacleLayer',
    'enabled': True,
    'footprint_clearing_enabled': True,
    'min_obstacle_height': 0.0,
    'max_obstacle_height': 2.0,
    'combination_method': 1,
    'observation_sources': '',
}
OBSTACLE_SOURCE = {
    'topic': '',
    'sensor_frame': '',
    'observation_persistence': 0.0,
    'expected_update_rate': 0.0,
    'data_type': 'LaserScan',
    'min_obstacle_height': 0.0,
    'max_obstacle_height': 0.0,
    'inf_is_valid': False,
    'marking': True,
    'clearing': False,
    'obstacle_max_range': 2.5,
    'obstacle_min_range': 0.0,
    'raytrace_max_range': 3.0,
    'raytrace_min_range': 0.0,
}
OBSTACLE_TYPES = {'PointCloud2': 'sensor_msgs/PointCloud2', 'LaserScan': 'sensor_msgs/LaserScan'}
SEMANTIC_LAYER = {
    'plugin': 'semantic_segmentation_layer::SemanticSegmentationLayer',
    'enabled': True,
    'combination_method': 1,
    'observation_sources': '',
    'publish_debug_topics': False,
    'use_approximate_time_sync': True,
}
SEMANTIC_SOURCE = {
    'segmentation_topic': '',
    'confidence_topic': '',
    'labels_topic': '',
    'pointcloud_topic': '',
    'observation_persistence': 0.0,
    'expected_update_rate': 0.0,
    'class_types': [],
    'max_obstacle_distance': 5.0,
    'min_obstacle_distance': 0.3,
    'tile_map_decay_time': 5.0,
    'visualize_tile_map': False,
    'use_cost_selection': True,
}
SEMANTIC_CLASS = {
    'classes': [],
    'base_cost': 0,
    'max_cost': 0,
    'mark_confidence': 0,
    'samples_to_max_cost': 0,
    'dominant_priority': False,
}
INFLATION_LAYER = {
    'plugin': 'nav2_costmap_2d::InflationLayer',
    'enabled': True,
    'inflation_radius': 0.55,
    'cost_scaling_factor': 10.0,
    'inflate_unknown': False,
    'inflate_around_unknown': False,
}
FREE, LETHAL, NO_INFORMATION = 0, 254, 255


@dataclass
class ObstacleLayer:
    """
    One obstacle layer of a rolling costmap around the base's frame, which lies at `base`.

    values: the layer's own parameters, defaults for those left out. size, resolution: metres.
    """

    values: dict
    size: float
    resolution: float
    base: tuple = (0.0, 0.0, 0.0)

    def update(self, messages):
        """
        Return {cell: LETHAL or FREE} after one message a source, {source: points or scan}.

        All sources clear before the first one marks.
        """
        layer = {**OBSTACLE_LAYER, **self.values}
        cells, observed = {}, []
        for name in layer['observation_sources'].split():
            source = {**OBSTACLE_SOURCE, **layer[name]}
            points = messages[name]
            if source['data_type'] == 'LaserScan':
                points = scan_points(points, source['inf_is_valid'])
            points = np.asarray(points, float).reshape(-1, 3) + self.base
            z = points[:, 2]  # bufferCloud: for marking and clearing alike
            low, high = source['min_obstacle_height'], source['max_obstacle_height']
            observed.append((source, points[(z >= low) & (z <= high)]))
        for source, points in observed:
            if source['clearing']:
                cells |= dict.fromkeys(self._before(points, source['raytrace_max_range']), FREE)
        for source, points in observed:
            if source['marking']:
                low, high = layer['min_obstacle_height'], layer['max_obstacle_height']
                reach = np.hypot(*(points[:, :2] - self.base[:2]).T)
                held = (points[:, 2] >= low) & (points[:, 2] <= high)
                held &= reach <= source['obstacle_max_range']
                cells |= dict.fromkeys(self.cells(points[held]), LETHAL)
        return cells

    def cells(self, points):
        """Return the cells, (column, row), of those points (N, 2 or 3) that lie in the map."""
        offset = points[:, :2] - self.base[:2] + self.size / 2
        inside = ((offset >= 0) & (offset < self.size)).all(axis=1)
        return [tuple(cell) for cell in (offset[inside] // self.resolution).astype(int).tolist()]

    def _before(self, points, longest):
        """Return the cells between the base and each point, by steps of half a cell."""
        ways = points[:, :2] - self.base[:2]
        lengths = np.hypot(*ways.T)
        steps = np.arange(0.0, longest, self.resolution / 2)
        along = ways[:, None] / lengths[:, None, None] * steps[:, None]
        before = steps < lengths[:, None]
        return self.cells(along[before] + self.base[:2])


def scan_points(scan, inf_is_valid):
    """Return a LaserScan's points in its frame, (N, 3), as the layer makes them."""
    ranges = np.array(scan.ranges, float)
    if inf_is_valid:
        ranges[np.isposinf(ranges)] = scan.range_max - 0.0001
    angles = scan.angle_min + scan.angle_increment * np.arange(len(ranges))
    held = (ranges >= scan.range_min) & (ranges < scan.range_max)  # NaN is neither
    rays = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))])
    return rays[held] * ranges[held, None]
