# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Set the DDS profile for large images for every process that is launched afterwards.

Include it in the launch file of the camera driver: the profile acts in the publisher's process.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

FILES = {'large_images': 'dds_large_images.xml'}
NONE = 'none'  # ros2 launch takes no empty value
# Jazzy and Humble read the first variable, Kilted and later the second.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def set_profile(context):
    """Return the environment of the profile's middleware, [] for none."""
    name = LaunchConfiguration('dds_profile').perform(context)
    if name in ('', NONE):
        return []
    if name not in FILES:
        raise ValueError(f'dds_profile:={name} is not known: use {NONE} or {", ".join(FILES)}')
    path = Path(__file__).resolve().parent.parent / 'config' / FILES[name]
    return [SetEnvironmentVariable(variable, str(path)) for variable in VARIABLES]


def generate_launch_description():
    """Declare dds_profile and apply it to whatever starts after this."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'dds_profile',
                default_value='large_images',
                description='DDS profile: none or large_images (Fast DDS)',
            ),
            OpaqueFunction(function=set_profile),
        ]
    )
