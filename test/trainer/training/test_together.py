# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings whose processes share every batch give the network of one process."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from together import TRAININGS, trained_by  # noqa: E402


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
    return {count: trained_by(count, tmp_path_factory.mktemp('by')) for count in (1, 2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
@pytest.mark.parametrize('name', TRAININGS)
def test_processes_give_the_network_of_one(learned, name, count):
    one, many = learned[1][name], learned[count][name]
    assert one.keys() == many.keys()
    for tensor, value in one.items():
        # a bias before a BatchNorm has rounding alone for a gradient, and Adam makes steps of it
        atol = 1e-3 if tensor.startswith('decoder.levels.0.steps') else 1e-4
        torch.testing.assert_close(many[tensor], value, rtol=1e-3, atol=atol, msg=tensor)
