# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Substitutions."""


class LaunchConfiguration:
    def __init__(self, variable_name):
        self.name = variable_name

    def perform(self, context):
        return context.launch_configurations[self.name]
