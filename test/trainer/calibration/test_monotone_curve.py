# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The surprisal table: piecewise linear between knots, strictly increasing everywhere."""

import numpy as np
import pytest
from monotone_curves import surprisal_of

from ood_perception.errors import ConfigError

torch = pytest.importorskip('torch')
from trainer.calibration.monotone_curve import CalibrationCurve, CurveModule  # noqa: E402
from trainer.export.onnx import to_onnx  # noqa: E402


def a_curve(count=64, seed=0):
    rng = np.random.default_rng(seed)
    knots = 0.01 + np.cumsum(rng.uniform(0.001, 0.1, count))
    return CalibrationCurve(-3.0, 0.25, knots, low_slope=0.02, high_slope=0.4)


def test_between_the_knots_it_is_linear_interpolation():
    curve = a_curve()
    places = curve.start + curve.step * np.arange(len(curve.knots))
    x = np.random.default_rng(1).uniform(curve.start, curve.stop, 1000)

    np.testing.assert_allclose(
        surprisal_of(curve, x), np.interp(x, places, curve.knots), rtol=1e-12
    )


def test_the_tails_follow_their_closed_forms():
    curve = a_curve()

    high = surprisal_of(curve, curve.stop + 5.0)
    low = surprisal_of(curve, curve.start - 2.0)

    assert high == pytest.approx(curve.knots[-1] + 5.0 * 0.4)
    assert low == pytest.approx(curve.knots[0] * np.exp(-2.0 * 0.02 / curve.knots[0]))


def test_it_rises_strictly_and_stays_positive():
    x = np.linspace(-8.0, 60.0, 20_000)
    surprisal = surprisal_of(a_curve(), x)

    assert (np.diff(surprisal) > 0).all()
    assert surprisal.min() > 0


@pytest.mark.parametrize('count', [2, 64, 4096])
def test_the_graph_agrees_with_numpy(count):
    curve = a_curve(count)
    x = np.concatenate(
        [
            np.random.default_rng(2).uniform(curve.start - 9, curve.stop + 9, 5000),
            [curve.start, curve.stop, curve.stop - curve.step, -1e6, 1e6],
        ]
    ).astype(np.float32)

    got = CurveModule(curve)(torch.from_numpy(x)).numpy()

    np.testing.assert_allclose(got, surprisal_of(curve, x), rtol=2e-5, atol=1e-5)


def test_the_exported_graph_agrees_with_torch():
    onnxruntime = pytest.importorskip('onnxruntime')
    module = CurveModule(a_curve())
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
        CalibrationCurve(**values)
