# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What this machine has of what ood_perception needs, and what to install.

Exit status: 0 the node can run, 3 ROS 2 is missing and the programs without it can run, 1 nothing
can. No package is imported and nothing started but nvidia-smi: `ood compile` tries the engine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from ood_perception import __version__
from ood_perception.cpu_flags import cpu_flags, cpu_name, kernel_flags, what_follows
from ood_perception.files import CACHE_ENV, cache_root
from ood_perception.json_files import json_text
from ood_perception.requirements import (
    Requirement,
    has_module,
    install_command,
    requirements,
)

OK, NOTE, MISSING = 'ok', 'note', 'missing'
NODE_RUNS, NOTHING_RUNS, NO_ROS = 0, 1, 3
# Modules of the runtimes and the package that brings each; the first that is here serves.
RUNTIMES = {
    'openvino': 'openvino',
    'onnxruntime': 'onnxruntime',
    'faiss': 'faiss-cpu',
    'tensorrt': 'tensorrt',
    'tensorrt_rtx': 'tensorrt-rtx-cu13-bindings',
}
# Packages whose modules the node imports at once, and those that it can do without.
ROS_MODULES = (
    'rclpy', 'ament_index_python', 'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs',
    'lifecycle_msgs', 'rcl_interfaces', 'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs',
    'visualization_msgs',
)  # fmt: skip
ROS_OPTIONAL = {
    'vision_msgs': '~/obstacles and label names are off',
    'cv_bridge': 'rare image encodings are refused',
    'launch_ros': 'no `ros2 launch`; `ood node` runs all the same',
}
ROS_FOLDER = Path('/opt/ros')


@dataclass(frozen=True)
class Finding:
    """One line of the report; remedy: what to do about it, '' for nothing."""

    topic: str
    state: str
    text: str
    remedy: str = ''


def findings() -> Iterator[Finding]:
    """Yield what was found, topic by topic."""
    system = f'{platform.system()} {platform.machine()}, {" ".join(platform.libc_ver())}'
    # whose pip the remedies mean: on a robot another one comes first in PATH
    python = f'Python {platform.python_version()}, its pip: {sys.executable} -m pip'
    yield Finding('system', OK, f'{system}, {python}')
    yield _cpu()
    wanted = requirements()
    yield _packages([one for one in wanted if not one.extra and one.name not in RUNTIMES])
    yield _runtimes(wanted)
    yield _gpu()
    yield from _ros()
    yield _cache()
    yield from _extras(wanted)


def status_of(found: Sequence[Finding]) -> int:
    """Return the exit status that findings lead to, see the module."""
    missing = {finding.topic for finding in found if finding.state == MISSING}
    if missing & {'packages', 'runtimes', 'cache'}:
        return NOTHING_RUNS
    return NO_ROS if 'ROS 2' in missing else NODE_RUNS


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    options = parser.parse_args(argv)
    found = list(findings())
    status = status_of(found)
    if options.json:
        rows = [asdict(finding) for finding in found]
        values = {'version': __version__, 'status': status, 'cpu_flags': cpu_flags()}
        print(json_text({**values, 'findings': rows}, indent=2, ascii_only=True))
        return status
    for finding in found:
        print(f'{finding.state:8}{finding.topic:18}{finding.text}')
        if finding.remedy:
            print(f'{"":26}-> {finding.remedy}')
    print(f'\n{_VERDICTS[status]} (exit status {status})')
    return status


_VERDICTS = {
    NODE_RUNS: 'the node can run here; `ood compile` checks the engine, `ood demo` all of it',
    NO_ROS: 'the node cannot run without ROS 2; programs that need none can',
    NOTHING_RUNS: 'nothing can run here before what is missing is installed',
}


def _cpu() -> Finding:
    flags = cpu_flags()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    hidden = set(kernel_flags()) - set(flags)
    name = cpu_name() or 'CPU'
    told = ', '.join(flags) or 'no flags told'
    text = f'{name}, {cores} cores; {told}: {what_follows(flags)}'
    if hidden:  # qemu, valgrind, a limit set for glibc
        real = f'Emulated: the real one has {", ".join(sorted(hidden))}, too'
        return Finding('CPU', NOTE, f'{text}. {real}')
    return Finding('CPU', OK, text)


def _packages(wanted: Sequence[Requirement]) -> Finding:
    """Report what every job needs but the runtimes."""
    if not wanted:
        remedy = "pip install -e '.' in the checkout"
        return Finding('packages', MISSING, 'ood_perception itself is not installed', remedy)
    lacking = [one for one in wanted if not one.is_met]
    if lacking:
        states = [f'{one.name} {_wrong(one)}' for one in lacking]
        names = ' '.join(f"'{one}'" for one in lacking)
        return Finding('packages', MISSING, ', '.join(states), f'pip install {names}')
    return Finding('packages', OK, ', '.join(map(_told, wanted)))


def _told(one: Requirement) -> str:
    return f'{one.name} {one.installed}'.replace('?', 'of unknown version')


def _wrong(one: Requirement) -> str:
    return f'{one.installed} is not {one.versions}' if one.installed else 'is missing'


def _runtimes(wanted: Sequence[Requirement]) -> Finding:
    """Report the engines' runtimes; the default one is asked for by name everywhere."""
    here = [name for name in RUNTIMES if has_module(name)]
    versions = [
        _told(Requirement(package, '')).replace(package, name)
        for name, package in RUNTIMES.items()
        if name in here
    ]
    default = next((one for one in wanted if one.name == 'openvino'), Requirement('openvino', ''))
    remedy = f"pip install '{default}'"
    if not here:
        return Finding('runtimes', MISSING, f'none of {", ".join(RUNTIMES)}', remedy)
    if not default.is_met:
        text = f'{", ".join(versions)}; openvino, the default, {_wrong(default)}'
        return Finding('runtimes', NOTE, text, f'{remedy}, or choose another engine')
    return Finding('runtimes', OK, ', '.join(versions))


def _gpu() -> Finding:
    """Report NVIDIA's GPUs: the only ones that an engine runs on."""
    fields = 'name,compute_cap,memory.total,driver_version'
    command = ['nvidia-smi', f'--query-gpu={fields}', '--format=csv,noheader']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        if Path('/etc/nv_tegra_release').exists():
            return Finding('GPU', OK, 'Jetson', '' if has_module('tensorrt') else _TENSORRT)
        return Finding('GPU', OK, 'none found (no nvidia-smi that answers): the CPU serves')
    gpus = '; '.join(line.strip() for line in done.stdout.splitlines())
    if has_module('tensorrt') or has_module('tensorrt_rtx'):
        return Finding('GPU', OK, gpus)
    return Finding('GPU', NOTE, f'{gpus}; TensorRT is missing', _TENSORRT)


_TENSORRT = 'docs/tensorrt.md says which TensorRT this GPU takes'


def _ros() -> Iterator[Finding]:
    lacking = [name for name in ROS_MODULES if not has_module(name)]
    if lacking:
        distributions = sorted(ROS_FOLDER.glob('*/setup.bash'))
        remedy = f'source {distributions[-1]}' if distributions else _no_ros()
        others = f' and {len(lacking) - 1} more packages' if len(lacking) > 1 else ''
        yield Finding('ROS 2', MISSING, f'{lacking[0]}{others} cannot be found', remedy)
        return
    python = _python_of('rclpy')
    if python not in ('', '.'.join(platform.python_version_tuple()[:2])):
        text = f"its packages are Python {python}'s, this is Python {platform.python_version()}"
        yield Finding('ROS 2', MISSING, text, f'use python{python}, as for its own programs')
        return
    wheels = _wheels()
    name = os.environ.get('ROS_DISTRO') or wheels or 'of unknown name'
    middleware = os.environ.get('RMW_IMPLEMENTATION') or 'the default middleware'
    domain = os.environ.get('ROS_DOMAIN_ID') or '0'
    yield Finding('ROS 2', OK, f'{name}, {middleware}, domain {domain}')
    for module, without in ROS_OPTIONAL.items():
        if has_module(module):
            yield Finding(module, OK, 'found')
        else:
            remedy = f'apt install ros-{name}-{module.replace("_", "-")}'
            remedy = 'ROS 2 from apt has it, its wheels do not' if wheels else remedy
            yield Finding(module, NOTE, f'missing: {without}', remedy)


def _no_ros() -> str:
    wheels = install_command('ros')
    return f'install ROS 2 (docs/install.md), or its wheels: {wheels}'


def _python_of(module: str) -> str:
    """Return the Python that a module was installed for, such as 3.12; '' where none is named."""
    origin = getattr(find_spec(module), 'origin', None) or ''
    named = re.search(r'/python(3\.\d+)/', origin)
    return named[1] if named else ''


def _wheels() -> str:
    """Return the distribution whose wheels are installed, '' for none."""
    wheels = [one for one in requirements() if one.extra.startswith('ros-')]
    return next((one.name.split('-')[1] for one in wheels if one.is_met), '')


def _cache() -> Finding:
    """Report the cache, and whether weights were completed in it before."""
    root = cache_root()
    base = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not os.access(base, os.W_OK):
        remedy = f'set {CACHE_ENV} to a folder that you may write'
        return Finding('cache', MISSING, f'{root} cannot be written', remedy)
    free = f'{root}, {shutil.disk_usage(base).free / 1e9:.1f} GB free'
    if any((root / 'completed').glob('*')):
        return Finding('cache', OK, f'{free}; weights of a bundle are in it')
    remedy = '`ood compile` fetches them now; it needs a network or --weights FILE'
    return Finding('cache', NOTE, f'{free}; no weights yet (90 MB, once)', remedy)


def _extras(wanted: Sequence[Requirement]) -> Iterator[Finding]:
    """Report every extra but the developers' and what ROS 2's and the GPU's lines say."""
    for extra in dict.fromkeys(one.extra for one in wanted):
        if extra in ('', 'test') or extra.startswith(('ros', 'tensorrt')):
            continue
        lacking = [one for one in wanted if one.extra == extra and not one.is_met]
        if lacking:
            states = ', '.join(f'{one.name} {_wrong(one)}' for one in lacking)
            yield Finding(f'extra {extra}', NOTE, states, install_command(extra))
        else:
            yield Finding(f'extra {extra}', OK, 'installed')


if __name__ == '__main__':
    sys.exit(main())
