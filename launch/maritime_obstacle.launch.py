# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Launch the node on a boat: obstacles on the water, the water's edge, bearings and distances.

All arguments of road_anomaly.launch.py hold here, too. See docs/maritime.md.

Example, with the topics of VRX's WAM-V:
  ros2 launch ood_perception maritime_obstacle.launch.py use_sim_time:=true
  cameras:=/wamv/sensors/cameras/front_left_camera_sensor/optical/image_raw
  imu:=/wamv/sensors/imu/imu/data camera_poses:='0.75,0.1,1.5 0,0.26,0'
  base_frame:=wamv/wamv/base_link

"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
# Only the defaults differ from road_anomaly.launch.py.
ARGUMENTS = (
    ('name', 'maritime_obstacle', 'Name of the node'),
    ('params_file', str(HERE.parent / 'config' / 'maritime_obstacle.yaml'), 'Parameter file'),
)


def generate_launch_description():
    """Start the node as a boat needs it: horizon, bearings, distances."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'road_anomaly.launch.py')),
        launch_arguments={name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}.items(),
    )
    return LaunchDescription([*arguments, node])
