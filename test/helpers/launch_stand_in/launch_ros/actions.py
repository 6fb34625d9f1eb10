# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The Node action: keeps its arguments and starts nothing."""

from launch.actions import Action


class Node(Action):
    def __init__(
        self,
        *,
        package,
        executable,
        name,
        namespace,
        parameters,
        remappings,
        ros_arguments,
        output,
        emulate_tty,
        arguments=None,
        on_exit=None,
    ):
        self.arguments = {key: value for key, value in locals().items() if key != 'self'}
