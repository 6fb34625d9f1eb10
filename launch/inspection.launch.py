# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Launch the node for a triggered camera over a product: every image is judged, none is dropped.

All arguments of road_anomaly.launch.py hold here, too.

Example:
  ros2 launch ood_perception inspection.launch.py bundle:=/data/line_bundle
  cameras:=/station1/image_raw in_distribution:=tile

"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
# Only the defaults differ from road_anomaly.launch.py.
ARGUMENTS = (
    ('bundle', None, 'Bundle of the products: a directory or a .zip'),
    ('in_distribution', '', 'The product on the line, or several: name,name; default: all'),
    ('name', 'inspection', 'Name of the node'),
    ('params_file', str(HERE.parent / 'config' / 'inspection.yaml'), 'Parameter file'),
    (
        'dds_profile',
        'large_images',
        'DDS profile: none or large_images; the camera driver needs it',
    ),
)


def generate_launch_description():
    """Start the node as a line needs it: every triggered image judged, no ground."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'road_anomaly.launch.py')),
        launch_arguments={name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}.items(),
    )
    return LaunchDescription([*arguments, node])
