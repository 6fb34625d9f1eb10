# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The rules of who may import what, read from the source, and that importing does nothing."""

import ast
import subprocess
import sys

import pytest
from limits import HANGS
from paths import ROOT

RUNTIME = ROOT / 'ood_perception'
TRAINER = ROOT / 'trainer'

TRAINING = {
    'torch',
    'torchvision',
    'transformers',
    'safetensors',
    'trainer',
    'ood_perception_trainer',
}
ROS = {
    'rclpy', 'launch', 'launch_ros', 'ament_index_python', 'cv_bridge', 'rcl_interfaces',
    'sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'visualization_msgs', 'vision_msgs',
    'geometry_msgs', 'builtin_interfaces', 'lifecycle_msgs', 'rosidl_runtime_py', 'rosgraph_msgs',
}  # fmt: skip
RUNTIMES = {'openvino', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'cuda'}
HEAVY = TRAINING | ROS | RUNTIMES | {'cv2', 'onnx', 'matplotlib', 'yaml', 'rosbags', 'scipy'}


def imported(path):
    """Return (module, at the top level?) of every import of a file, relative ones resolved."""
    tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    late = {
        child
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or is_typing_only(node)
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(name.name, node not in late) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(path.relative_to(ROOT).with_suffix('').parts)[: -node.level]
            module = '.'.join([*base, node.module or '']) if node.level else node.module
            found.append((module.rstrip('.'), node not in late))
            found += [
                (f'{module.rstrip(".")}.{name.name}', node not in late) for name in node.names
            ]
        elif is_dynamic_import(node):
            found.append((node.args[0].value, False))
    return found


def is_typing_only(node):
    return isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)


def is_dynamic_import(node):
    return (
        isinstance(node, ast.Call)
        and getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        in ('import_module', '__import__', 'required')
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def files(folder, *, without=()):
    paths = sorted(folder.rglob('*.py'))
    assert paths
    return [p for p in paths if not any(p.is_relative_to(other) for other in without)]


def offenders(paths, forbidden, *, top_level_only=False):
    return [
        f'{path.relative_to(ROOT)}: {module}'
        for path in paths
        for module, top in imported(path)
        if module.split('.')[0] in forbidden and (top or not top_level_only)
    ]


def test_the_runtime_knows_neither_torch_nor_the_trainer():
    assert offenders(files(RUNTIME), TRAINING) == []


def test_only_the_ros_folder_and_launch_import_ros():
    # The demo starts the node and publishes frames from processes of its own, through ros/.
    assert offenders(files(RUNTIME, without=[RUNTIME / 'ros']), ROS) == []
    assert offenders(files(TRAINER), ROS) == []


def test_only_the_engines_name_a_runtime_and_only_late():
    peak = RUNTIME / 'bench' / 'peak.py'  # measures the runtime's own products
    outside = files(RUNTIME, without=[RUNTIME / 'engines', peak])
    assert offenders(outside, RUNTIMES) == []
    inside = [*files(RUNTIME / 'engines'), peak]
    assert offenders(inside, RUNTIMES, top_level_only=True) == []


def test_the_trainer_never_uses_the_ros_side():
    found = [
        f'{path.relative_to(ROOT)}: {module}'
        for path in files(TRAINER)
        for module, _ in imported(path)
        if module == 'ood_perception.ros' or module.startswith('ood_perception.ros.')
    ]
    assert found == []


def test_the_trainer_imports_itself_relatively():
    # Installed it is called ood_perception_trainer, and `trainer` is somebody else's package.
    found = [
        f'{path.relative_to(ROOT)}:{node.lineno}'
        for path in files(TRAINER)
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if (isinstance(node, ast.ImportFrom) and not node.level and names_trainer(node.module))
        or (isinstance(node, ast.Import) and any(names_trainer(n.name) for n in node.names))
    ]
    assert found == []


def names_trainer(module):
    return module.split('.')[0] in ('trainer', 'ood_perception_trainer')


def test_what_the_runtime_leaves_to_ros_does_not_come_back_through_it():
    found = [
        f'{path.relative_to(ROOT)}: {module}'
        for path in files(RUNTIME, without=[RUNTIME / 'ros', RUNTIME / 'demo'])
        for module, top in imported(path)
        if top and module.startswith('ood_perception.ros')
    ]
    assert found == []


WATCH = """
import builtins, os, sys, threading
opened = []
def hook(event, args):
    if event == 'open' and isinstance(args[0], (str, bytes)):
        opened.append(os.fsdecode(args[0]))
    elif event in ('subprocess.Popen', 'socket.connect', 'os.mkdir', 'os.system'):
        opened.append(event)
sys.addaudithook(hook)
import {module}
own = [p for p in opened if not p.endswith(('.py', '.pyc', '.so')) and '__pycache__' not in p]
print('|'.join(sorted({{name.split('.')[0] for name in sys.modules}})))
print('|'.join(own))
print(threading.active_count())
"""


def import_in_subprocess(module):
    done = subprocess.run(
        [sys.executable, '-c', WATCH.format(module=module)],
        cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded, opened, threads = done.stdout.split('\n')[:3]
    return set(loaded.split('|')), [p for p in opened.split('|') if p], int(threads)


def test_importing_the_package_starts_nothing_and_reads_nothing():
    loaded, opened, threads = import_in_subprocess('ood_perception')
    assert loaded & HEAVY == set()
    assert 'numpy' not in loaded
    assert opened == []
    assert threads == 1


@pytest.mark.parametrize(
    'module',
    ['ood_perception.pipeline', 'ood_perception.postprocess.overlay', 'ood_perception.engines'],
)
def test_importing_the_runtime_loads_numpy_and_opencv_alone(module):
    loaded, _, _ = import_in_subprocess(module)
    assert loaded & (HEAVY - {'cv2'}) == set()
