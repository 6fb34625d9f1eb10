# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files' descriptions: every argument reaches the node, and nothing else happens."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import LAUNCH, ROOT, VARIABLES, describe, nodes
from limits import HANGS

__all__ = ['nodes']  # fixtures


def launch_node(nodes, **arguments):
    context = describe('road_anomaly.launch.py', **arguments)
    (node,) = nodes
    return node, context


def test_defaults_leave_the_parameter_file_alone(nodes):
    node, context = launch_node(nodes)
    assert (node['package'], node['executable']) == ('ood_perception', 'road_anomaly_node')
    file, overrides = node['parameters']
    assert Path(file) == ROOT / 'config' / 'road_anomaly.yaml'
    assert overrides == {'use_sim_time': False, 'autostart': True}
    assert node['remappings'] == []
    assert not any(context.environment.get(v, '').endswith('large_images.xml') for v in VARIABLES)


@pytest.mark.parametrize('name', ['bundle', 'weights', 'engine', 'precision', 'transport'])
def test_texts_become_parameters(nodes, name):
    node, _ = launch_node(nodes, **{name: 'some value'})
    assert node['parameters'][1][name] == 'some value'


def test_flags_names_and_files_reach_the_node(nodes, tmp_path):
    file = tmp_path / 'file.yaml'
    file.touch()
    node, _ = launch_node(
        nodes,
        use_sim_time='true',
        autostart='False',
        namespace='boat',
        name='watch',
        params_file=str(file),
        log_level='debug',
    )
    assert node['parameters'] == [str(file), {'use_sim_time': True, 'autostart': False}]
    assert (node['namespace'], node['name']) == ('boat', 'watch')
    assert node['ros_arguments'] == ['--log-level', 'debug']


def test_one_topic_is_the_unnamed_camera(nodes):
    node, _ = launch_node(nodes, cameras='/cam/image_raw')
    assert node['parameters'][1]['cameras'] == ['']
    assert node['remappings'] == [
        ('image', '/cam/image_raw'),
        ('camera_info', '/cam/camera_info'),
    ]


@pytest.mark.parametrize('given', ['', 'compressed'])
def test_a_topic_as_image_transport_names_it_says_its_transport(nodes, given):
    node, _ = launch_node(nodes, cameras='/cam/image_raw/compressed', transport=given)
    assert node['parameters'][1]['transport'] == 'compressed'
    assert node['remappings'][0] == ('image', '/cam/image_raw')
    assert node['remappings'][1] == ('camera_info', '/cam/camera_info')


def test_calibration_files_reach_the_node(nodes):
    node, _ = launch_node(nodes, camera_info_url='front: file:///a.yaml; rear: file:///b.yaml')
    expected = ['front: file:///a.yaml', 'rear: file:///b.yaml']
    assert node['parameters'][1]['camera_info_url'] == expected


def test_named_cameras_are_remapped_each(nodes):
    node, _ = launch_node(
        nodes,
        cameras='front=/f/image_raw, left=/l/image',
        camera_info='left=/l/optical/camera_info',
    )
    assert node['parameters'][1]['cameras'] == ['front', 'left']
    assert dict(node['remappings']) == {
        'front/image': '/f/image_raw',
        'front/camera_info': '/f/camera_info',
        'left/image': '/l/image',
        'left/camera_info': '/l/optical/camera_info',
    }


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'cameras': 'front=/a,front=/b'}, 'twice'),
        ({'cameras': 'front=/a,/b'}, 'needs a name'),
        ({'cameras': 'front='}, 'empty'),
        ({'cameras': 'front=/a', 'camera_info': 'rear=/b'}, 'rear'),
        ({'use_sim_time': 'perhaps'}, 'use true or false'),
        ({'dds_profile': 'huge'}, 'large_images'),
        ({'params_file': '/nowhere/node.yaml'}, 'params_file:=/nowhere/node.yaml'),
        ({'bundle': '/nowhere/bundle'}, 'bundle:=/nowhere/bundle'),
        ({'bundle': 'nowhere.zip'}, 'bundle:=nowhere.zip'),
        ({'required': 'perhaps'}, 'use true or false'),
        ({'cameras': '/a/image/compressed', 'transport': 'raw'}, 'one transport'),
        ({'cameras': 'a=/a/image/compressed,b=/b/image'}, 'one transport'),
    ],
)
def test_unusable_arguments_are_refused_with_the_reason(nodes, arguments, words):
    with pytest.raises(ValueError, match=words):
        launch_node(nodes, **arguments)


def ended(returncode, is_shutdown=False):
    event = SimpleNamespace(process_name='node-1', returncode=returncode)
    return event, SimpleNamespace(is_shutdown=is_shutdown)


def test_a_node_that_cannot_start_ends_the_launch_with_an_error(nodes):
    node, _ = launch_node(nodes)
    with pytest.raises(RuntimeError, match='could not start'):
        node['on_exit'](*ended(1))
    for harmless in (ended(0), ended(-2), ended(-11), ended(1, is_shutdown=True)):
        assert not node['on_exit'](*harmless)


def test_a_launch_may_outlive_a_node_that_cannot_start(nodes):
    node, _ = launch_node(nodes, required='false')
    assert node['on_exit'] is None


def test_dds_profile_is_set_for_both_families_of_distributions(nodes):
    _, context = launch_node(nodes, dds_profile='large_images')
    for variable in VARIABLES:
        assert Path(context.environment[variable]) == ROOT / 'config' / 'dds_large_images.xml'


@pytest.mark.parametrize('none', ['', 'none'])
def test_no_dds_profile_may_be_asked_for(nodes, none):
    _, context = launch_node(nodes, dds_profile=none)
    assert not any(context.environment.get(v, '').endswith('large_images.xml') for v in VARIABLES)


def test_dds_launch_alone_sets_the_profile_by_default(nodes):
    assert all(v in describe('dds.launch.py').environment for v in VARIABLES)


@pytest.mark.parametrize('file', sorted(LAUNCH.glob('*.launch.py')), ids=lambda p: p.name)
def test_launch_files_have_no_side_effects(file):
    """No process, no evaluation, no download: launching only describes."""
    tree = ast.parse(file.read_text())
    imported = {
        name.name.split('.')[0]
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Import)
        for name in statement.names
    } | {s.module.split('.')[0] for s in ast.walk(tree) if isinstance(s, ast.ImportFrom)}
    assert imported <= {'difflib', 'pathlib', 'sys', 'launch', 'launch_ros'}
    called = {c.func.id for c in ast.walk(tree) if isinstance(c, ast.Call) and isinstance(
        c.func, ast.Name)}  # fmt: skip
    assert not called & {'eval', 'exec', 'open', 'compile', '__import__'}


COMMAND_LINES = {
    'by package': ('ood_perception', 'road_anomaly.launch.py'),
    'by path': ('launch', str(LAUNCH / 'road_anomaly.launch.py')),
}


@pytest.mark.parametrize('words', COMMAND_LINES.values(), ids=COMMAND_LINES)
@pytest.mark.parametrize(
    ('wrong', 'hint'),
    [('bundel:=x', 'did you mean bundle:='), ('qqqqq:=1', '--show-args lists them')],
)
def test_a_misspelt_argument_is_refused(nodes, monkeypatch, words, wrong, hint):
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', *words, wrong])
    with pytest.raises(ValueError, match=f'^{wrong.partition(":")[0]}:= is no argument.*{hint}'):
        describe('road_anomaly.launch.py', [wrong])
    assert not nodes


def test_arguments_of_a_file_that_includes_ours_are_its_own(nodes, monkeypatch):
    words = ['ros2', 'launch', 'my_robot', 'robot.launch.py', 'camera:=x', 'model:=y']
    monkeypatch.setattr(sys, 'argv', words)
    describe('road_anomaly.launch.py', words[-2:], camera='x', model='y')
    assert len(nodes) == 1


def test_what_ros2_launch_itself_passes_on_is_no_mistake(nodes, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', *COMMAND_LINES['by package']])
    describe('road_anomaly.launch.py', ['launch-prefix:=gdb', 'bundle:='])
    assert len(nodes) == 1


def ros2_launch(file, *arguments):
    """Run the real command, where it is installed."""
    program = 'import sys; from ros2cli.cli import main; sys.exit(main())'
    try:
        importlib.import_module('ros2launch')
    except ImportError:
        pytest.skip('ros2 launch is not installed')
    return subprocess.run(
        [sys.executable, '-c', program, 'launch', str(LAUNCH / file), *arguments],
        capture_output=True,
        text=True,
        timeout=HANGS,
    )


@pytest.mark.parametrize('file', ['road_anomaly.launch.py', 'maritime_obstacle.launch.py'])
@pytest.mark.parametrize('wrong', ['params_file:=/nowhere.yaml', 'bundle:=/nowhere'])
def test_ros2_launch_fails_for_a_file_that_is_not_there(file, wrong):
    done = ros2_launch(file, wrong)
    assert done.returncode == 1
    assert wrong in done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr


@pytest.mark.parametrize('file', sorted(LAUNCH.glob('*_*.launch.py')), ids=lambda p: p.name)
def test_ros2_launch_refuses_a_misspelt_argument(file, tmp_path):
    own = {'evaluate_bag.launch.py': ('bag:=b', 'cameras:=/c', f'out:={tmp_path / "out"}')}
    done = ros2_launch(file.name, *own.get(file.name, ()), 'bundel:=/nowhere')
    assert done.returncode == 1
    assert 'did you mean bundle:=' in done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr


def test_ros2_launch_lists_the_arguments():
    shown = ros2_launch('road_anomaly.launch.py', '--show-args')
    assert shown.returncode == 0, shown.stderr
    for argument in ('bundle', 'cameras', 'dds_profile', 'params_file', 'autostart'):
        assert f"'{argument}':" in shown.stdout


def test_the_normal_classes_may_be_named(nodes):
    node, _ = launch_node(nodes, in_distribution='tile, cork')
    assert node['parameters'][1]['in_distribution'] == ['tile', 'cork']


def test_inspection_is_the_same_node_with_its_own_file(nodes, tmp_path):
    bundle = str(tmp_path)
    describe(
        'inspection.launch.py', bundle=bundle, cameras='/station/image', in_distribution='tile'
    )
    (node,) = nodes
    file, overrides = node['parameters']
    assert Path(file) == ROOT / 'config' / 'inspection.yaml'
    assert node['name'] == 'inspection'
    assert overrides['in_distribution'] == ['tile']
    assert overrides['bundle'] == bundle
    assert ('image', '/station/image') in node['remappings']


def test_inspection_needs_a_bundle_of_products(nodes):
    with pytest.raises(RuntimeError, match='bundle'):
        describe('inspection.launch.py')


VRX_CAMERA = '/wamv/sensors/cameras/front_left_camera_sensor/optical'


def test_maritime_is_the_same_node_with_its_own_file(nodes):
    describe(
        'maritime_obstacle.launch.py',
        cameras=f'{VRX_CAMERA}/image_raw',
        imu='/wamv/sensors/imu/imu/data',
        camera_poses='0.75,0.1,1.5 0,0.26,0',
        base_frame='wamv/wamv/base_link',
        use_sim_time='true',
    )
    (node,) = nodes
    file, overrides = node['parameters']
    assert Path(file) == ROOT / 'config' / 'maritime_obstacle.yaml'
    assert node['name'] == 'maritime_obstacle'
    assert overrides == {
        'use_sim_time': True,
        'autostart': True,
        'cameras': [''],
        'camera.poses': ['0.75,0.1,1.5 0,0.26,0'],
        'camera.base_frame': 'wamv/wamv/base_link',
    }
    assert node['remappings'] == [
        ('image', f'{VRX_CAMERA}/image_raw'),
        ('camera_info', f'{VRX_CAMERA}/camera_info'),
        ('imu', '/wamv/sensors/imu/imu/data'),
    ]


def test_several_poses_and_the_source_of_attitude_reach_the_node(nodes):
    node, _ = launch_node(
        nodes, camera_poses='front: 1,0,2 0,0,0; rear: -1,0,2 0,0,3.14', attitude='level'
    )
    overrides = node['parameters'][1]
    assert overrides['camera.poses'] == ['front: 1,0,2 0,0,0', 'rear: -1,0,2 0,0,3.14']
    assert overrides['attitude.source'] == 'level'
