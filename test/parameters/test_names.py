# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Names of parameters that somebody wrote: which are misspelt, and which are other nodes'."""

import pytest

from ood_perception.parameters.files import misspelt_names, unknown_names

OTHERS = ('controller_frequency', 'robot_description', 'camera_name', 'detector.threshold')
OF_ROS = ('use_sim_time', 'qos_overrides./road_anomaly/mask.publisher.depth')


@pytest.mark.parametrize(
    ('written', 'meant'),
    [
        ('minimum_aera', 'minimum_area'),
        ('false_alarm', 'false_alarm_rate'),
        ('roi_mode', 'roi.mode'),
        ('mode', 'roi.mode'),
        ('camera', 'cameras'),
        ('Bundle', 'bundle'),
    ],
)
def test_a_misspelt_name_comes_with_the_one_that_is_meant(written, meant):
    assert misspelt_names([written]) == [f'{written} (did you mean {meant}?)']
    assert unknown_names([written]) == [f'{written} (did you mean {meant}?)']


def test_names_of_other_nodes_are_unknown_and_not_misspelt():
    assert misspelt_names(OTHERS) == []
    assert [name.split()[0] for name in unknown_names(OTHERS)] == list(OTHERS)


def test_known_names_and_those_of_ros_are_neither():
    names = ('bundle', 'roi.mode', *OF_ROS)
    assert misspelt_names(names) == unknown_names(names) == []
