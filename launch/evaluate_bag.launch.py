# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Evaluate a bag live: play it to road_anomaly_node at a rate, and compare with the offline masks.

The node runs on the bag's time (/clock, use_sim_time). live_comparison evaluates the bag offline
first, with the same parameters, unless offline:= names a folder of evaluate_bag; it plays the bag
when the node is ready, counts the frames that real time cost, writes live.json and live.html, and
ends the launch: with exit status 0 when all masks are equal, else with 1.

Example:
  ros2 launch ood_perception evaluate_bag.launch.py bag:=/data/drive out:=/tmp/drive_live
  cameras:=front=/front/image_raw,left=/left/image_raw rate:=0.5

"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
PARAMETERS_FILE = HERE.parent / 'config' / 'road_anomaly.yaml'
NODE = 'road_anomaly'

# name, default (None: has to be given), description
ARGUMENTS = (
    ('bag', None, 'Bag: its folder, or one .mcap or .db3 file'),
    ('cameras', None, 'Image topics without /compressed: one topic, or name=topic,name=topic'),
    ('out', None, 'Folder of the comparison'),
    ('offline', '', 'Folder of evaluate_bag; default: made now, in <out>/offline'),
    ('rate', '1.0', 'Times the recorded speed'),
    ('player', 'own', 'own (takes every bag), or ros2 (ros2 bag play --clock)'),
    ('transport', 'raw', "The node's: raw (compressed recordings are decoded) or compressed"),
    ('bundle', '', 'Bundle: a directory or a .zip'),
    ('engine', '', 'Runtime: auto, openvino, onnxruntime, faiss, tensorrt'),
    ('precision', '', 'Precision of the backbone: auto, f32, bf16, int8, fp16 (tensorrt)'),
    ('params_file', str(PARAMETERS_FILE), "The node's parameter file"),
    ('dds_profile', 'large_images', 'DDS profile: none or large_images'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)
# options of evaluate_bag that take an argument of the same name
MODEL = ('bundle', 'engine', 'precision')
COMPRESSED = '/compressed'


def bag_topics(cameras, transport):
    """Return evaluate_bag's --topics for the launch argument `cameras`."""
    entries = [entry.strip() for entry in cameras.split(',') if entry.strip()]
    if not entries:
        raise ValueError('cameras:= is empty: give a topic, or name=topic,name=topic')
    return [entry + (COMPRESSED if transport == 'compressed' else '') for entry in entries]


def evaluate_options(value):
    """Return the options of evaluate_bag that make it see what the node sees."""
    options = ['--params', value['params_file']]
    for name in MODEL:
        if value[name]:
            options += [f'--{name}', value[name]]
    return [*options, '--topics', *bag_topics(value['cameras'], value['transport'])]


def end_launch(event, context):
    """End the launch when the comparison has ended, with exit status 1 unless it ended with 0."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(
            f'{event.process_name} ended with status {event.returncode}: see above, and live.json'
        )
    return [Shutdown(reason='the comparison has ended')]


def make_comparison(context):
    """Return the process that replays the bag and compares, once the arguments are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    offline = value['offline'] or str(Path(value['out']) / 'offline')
    arguments = [value['bag'], '--offline', offline, '--out', value['out']]
    for name in ('rate', 'player', 'transport'):
        arguments += [f'--{name}', value[name]]
    if not value['offline']:
        arguments += ['--evaluate', *evaluate_options(value)]
    comparison = Node(
        package='ood_perception',
        executable='live_comparison',
        name='live_comparison',
        namespace='',
        parameters=[],
        remappings=[],
        arguments=arguments,
        ros_arguments=['--log-level', value['log_level']],
        output='screen',
        emulate_tty=True,
        on_exit=end_launch,
    )
    return [comparison]


def generate_launch_description():
    """Start the node and, beside it, the comparison that replays the bag."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    passed = ('bundle', 'engine', 'precision', 'cameras', 'transport', 'params_file')
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'road_anomaly.launch.py')),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in passed},
            'dds_profile': LaunchConfiguration('dds_profile'),
            'log_level': LaunchConfiguration('log_level'),
            'name': NODE,
            'use_sim_time': 'true',
            'further_arguments': ','.join(name for name, _, _ in ARGUMENTS),
        }.items(),
    )
    return LaunchDescription([*arguments, node, OpaqueFunction(function=make_comparison)])
