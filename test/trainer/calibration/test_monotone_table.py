# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The surprisal table: piecewise linear between knots, strictly increasing everywhere."""

import numpy as np
import pytest
from monotone_tables import surprisal_of

from ood_perception.errors import ConfigError

torch = pytest.importorskip('torch')
from trainer.calibration.monotone_table import MonotoneTable, TableModule  # noqa: E402
from trainer.export.onnx import to_onnx  # noqa: E402


def a_table(count=64, seed=0):
    rng = np.random.default_rng(seed)
    knots = 0.01 + np.cumsum(rng.uniform(0.001, 0.1, count))
    return MonotoneTable(-3.0, 0.25, knots, low_slope=0.02, high_slope=0.4)


def test_between_the_knots_it_is_linear_interpolation():
    table = a_table()
    places = table.start + table.step * np.arange(len(table.knots))
    x = np.random.default_rng(1).uniform(table.start, table.stop, 1000)

    np.testing.assert_allclose(
        surprisal_of(table, x), np.interp(x, places, table.knots), rtol=1e-12
    )


def test_the_tails_follow_their_closed_forms():
    table = a_table()

    high = surprisal_of(table, table.stop + 5.0)
    low = surprisal_of(table, table.start - 2.0)

    assert high == pytest.approx(table.knots[-1] + 5.0 * 0.4)
    assert low == pytest.approx(table.knots[0] * np.exp(-2.0 * 0.02 / table.knots[0]))


def test_it_rises_strictly_and_stays_positive():
    x = np.linspace(-8.0, 60.0, 20_000)
    surprisal = surprisal_of(a_table(), x)

    assert (np.diff(surprisal) > 0).all()
    assert surprisal.min() > 0


@pytest.mark.parametrize('count', [2, 64, 4096])
def test_the_graph_agrees_with_numpy(count):
    table = a_table(count)
    x = np.concatenate(
        [
            np.random.default_rng(2).uniform(table.start - 9, table.stop + 9, 5000),
            [table.start, table.stop, table.stop - table.step, -1e6, 1e6],
        ]
    ).astype(np.float32)

    got = TableModule(table)(torch.from_numpy(x)).numpy()

    np.testing.assert_allclose(got, surprisal_of(table, x), rtol=2e-5, atol=1e-5)


def test_the_exported_graph_agrees_with_torch():
    onnxruntime = pytest.importorskip('onnxruntime')
    module = TableModule(a_table())
    x = torch.linspace(-6.0, 30.0, 4096).reshape(2, 32, 64)
    graph = to_onnx(module, (x,), ['x'], ['s']).SerializeToString()

    session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])
    (got,) = session.run(['s'], {'x': x.numpy()})

    np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    'change',
    [
        {'knots': np.array([0.2, 0.1])},
        {'knots': np.array([0.0, 0.1])},
        {'knots': np.array([0.1])},
        {'step': 0.0},
        {'high_slope': 0.0},
        {'start': np.nan},
    ],
)
def test_a_table_that_does_not_rise_is_refused(change):
    values = {'start': 0.0, 'step': 1.0, 'knots': np.array([0.1, 0.2])}
    values |= {'low_slope': 0.1, 'high_slope': 0.1} | change

    with pytest.raises(ConfigError, match='table'):
        MonotoneTable(**values)
