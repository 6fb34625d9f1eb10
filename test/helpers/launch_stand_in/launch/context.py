# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Context and description."""

import os


class LaunchContext:
    def __init__(self, *, argv=None):
        self.argv = list(argv or [])
        self.launch_configurations = {}
        self.environment = dict(os.environ)

    def perform_substitution(self, text):
        return text if isinstance(text, str) else text.perform(self)


class LaunchDescription:
    def __init__(self, entities=None):
        self.entities = list(entities or [])
