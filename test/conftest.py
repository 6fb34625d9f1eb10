# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests; math libraries use one thread, so that results do not depend on load."""

import os

import pytest

for variable in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(variable, '1')


@pytest.fixture(scope='session')
def tiny_bundle(tmp_path_factory):
    """A bundle folder that every test may read and none may change."""
    from bundles import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny')


@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
    """No test reads or fills the user's cache; what OOD_PERCEPTION_CACHE names is kept."""
    if not os.environ.get('OOD_PERCEPTION_CACHE'):
        os.environ['OOD_PERCEPTION_CACHE'] = str(tmp_path_factory.mktemp('cache'))
