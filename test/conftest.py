# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests; math libraries use one thread, so that results do not depend on load."""

import functools
import os
import sys

import pytest
from domains import isolate

for variable in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(variable, '1')


def pytest_collection_modifyitems(items):
    """Files with slow tests go first: no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope='session')
def own_graph():
    """No test process hears another one's nodes, nor those of this or another machine."""
    isolate(os.environ)


@pytest.fixture(autouse=True, scope='session')
def coarse_grids():
    """
    Models that tests train get the paper's tables from a grid of 400 x 400 cells, not 2000 x 2000.

    Those tables took a quarter of the whole run; what they are worth is told by the tests of
    trainer.heads.pixood.density, at full size.
    """
    if {'trainer', 'torch'} <= sys.modules.keys():
        from trainer.heads.pixood import training as pixood

        pixood.neyman_pearson_curve = functools.partial(pixood.neyman_pearson_curve, grid=400)


@pytest.fixture(scope='session')
def tiny_bundle(tmp_path_factory):
    """A bundle folder that every test may read and none may change."""
    from bundles import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny')


@pytest.fixture(autouse=True, scope='session')
def known_bundles():
    """What the helpers write needs no trial, in any cache; engines/test_trial.py asks for it."""
    from bundles import KNOWN

    from ood_perception import engines

    def unless_known(bundle, options):
        if bundle.sha256 not in KNOWN:
            engines.trial.try_first(bundle, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, 'try_first', unless_known)
        yield


@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
    """
    No test reads or fills the user's cache; what OOD_PERCEPTION_CACHE names is kept.

    The workers of a run share one, as processes may: weights are fetched and models built once.
    """
    if not os.environ.get('OOD_PERCEPTION_CACHE'):
        base = tmp_path_factory.getbasetemp()
        run = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
        os.environ['OOD_PERCEPTION_CACHE'] = str(run / 'cache')
