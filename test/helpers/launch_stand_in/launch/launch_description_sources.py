# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where an included description comes from."""

import runpy


class PythonLaunchDescriptionSource:
    def __init__(self, path):
        self.path = path

    def load(self):
        return runpy.run_path(self.path)['generate_launch_description']()
