# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Actions: each `visit` does what the real one would, without starting anything."""


class Action:
    def visit(self, context):
        return None


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value=None, description=None):
        self.name, self.default_value, self.description = name, default_value, description

    def visit(self, context):
        if self.default_value is None and self.name not in context.launch_configurations:
            raise RuntimeError(f'argument {self.name} was not given')
        context.launch_configurations.setdefault(self.name, self.default_value)


class Shutdown(Action):
    def __init__(self, *, reason='reason not given'):
        self.reason = reason


class SetEnvironmentVariable(Action):
    def __init__(self, name, value):
        self.name, self.value = name, value

    def visit(self, context):
        context.environment[self.name] = self.value


class OpaqueFunction(Action):
    def __init__(self, *, function):
        self.function = function

    def visit(self, context):
        return self.function(context)


class IncludeLaunchDescription(Action):
    def __init__(self, launch_description_source, *, launch_arguments=None):
        self.source, self.arguments = launch_description_source, list(launch_arguments or [])

    def visit(self, context):
        for name, value in self.arguments:
            context.launch_configurations[name] = context.perform_substitution(value)
        return self.source.load().entities
