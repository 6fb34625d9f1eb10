# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Launch files read without ROS."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
from paths import ROOT

LAUNCH = ROOT / 'launch'


STAND_IN = Path(__file__).resolve().parent / 'launch_stand_in'


VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def forget_launch():
    for name in [m for m in sys.modules if m.split('.')[0] in ('launch', 'launch_ros')]:
        del sys.modules[name]


# The folder launch/ of a checkout is no package but would be found; launch_ros/ is not there.
INSTALLED = importlib.util.find_spec('launch_ros') is not None


@pytest.fixture(params=['stand_in', 'real'] if INSTALLED else ['stand_in'])
def nodes(request, monkeypatch):
    """Import `launch`, real or not; return the list of the Node actions' arguments."""
    for variable in VARIABLES:  # the real actions change the environment of this process
        monkeypatch.delenv(variable, raising=False)
    if request.param == 'stand_in':
        forget_launch()
        monkeypatch.syspath_prepend(str(STAND_IN))
    actions = importlib.import_module('launch_ros.actions')
    seen = []

    class Recorder(actions.Node):
        def __init__(self, **arguments):
            seen.append(arguments)
            super().__init__(**arguments)

        def visit(self, context):
            return None  # start nothing

    monkeypatch.setattr(actions, 'Node', Recorder)
    yield seen
    forget_launch()


def visit(entities, context):
    for entity in entities or []:
        visit(entity.visit(context), context)


def describe(file, argv=(), **arguments):
    """Walk through a launch file as `ros2 launch` does; return the context."""
    from launch import LaunchContext

    context = LaunchContext(argv=list(argv))
    context.launch_configurations.update(arguments)
    description = runpy.run_path(str(LAUNCH / file))['generate_launch_description']()
    visit(description.entities, context)
    return context
