# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny bundle and nodes on it, for tests of the node; rclpy is imported when one is made."""

import pytest
from bundles import write_tiny_bundle


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp('bundles') / 'tiny'
    write_tiny_bundle(
        path, height=126, width=168, upsampling=7, compiled_classes=('Road', 'Pavement')
    )
    return str(path)


@pytest.fixture
def rig(bundle, monkeypatch):
    """Return a maker of rigs with a fake engine, whole image scored."""
    from ros_rig import Rig, use_fake_engine

    use_fake_engine(monkeypatch)
    rigs = []

    def make(start=True, remaps=(), **values):
        made = Rig(remaps, **{'bundle': bundle, 'roi__mode': 'none', **values})
        rigs.append(made)
        return made.start() if start else made

    yield make
    for made in rigs:
        made.__exit__()
