# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Sliding windows: every pixel is covered, borders and small pictures included; closed forms."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.evaluation.sliding import SlidingSettings, positions, sliding_maps, windows  # noqa: E402

SETTINGS = SlidingSettings((28, 42), (10, 14))
SIZES = [(28, 42), (27, 42), (10, 12), (38, 56), (48, 70), (39, 57), (28, 100), (90, 30)]


def coordinates(size):
    """Return a picture whose first two channels are row and column."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.dstack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        (1036, [0]),  # as large as the window
        (500, [0]),
        (1037, [0, 1]),
        (1176, [0, 140]),  # one whole stride further: the last window is not lost
        (1316, [0, 140, 280]),
        (1280, [0, 140, 244]),
        (2048, [0, 140, 280, 420, 560, 700, 840, 980, 1012]),
    ],
)
def test_the_last_window_ends_at_the_border(size, expected):
    assert positions(size, 1036, 140) == expected


def test_a_cityscapes_picture_takes_45_windows():
    assert len(list(windows((1024, 2048), SlidingSettings()))) == 45


@pytest.mark.parametrize('size', SIZES)
def test_every_pixel_is_covered_and_no_window_leaves_the_picture(size):
    padded = tuple(max(side, w) for side, w in zip(size, SETTINGS.window, strict=True))
    count = np.zeros(padded, int)
    for rows, columns in windows(padded, SETTINGS):
        assert rows.start >= 0 and rows.stop <= padded[0]  # noqa: PT018
        assert columns.start >= 0 and columns.stop <= padded[1]  # noqa: PT018
        count[rows, columns] += 1
    assert count.min() >= 1
    assert count.sum() == len(list(windows(padded, SETTINGS))) * 28 * 42


@pytest.mark.parametrize('size', SIZES)
def test_the_average_of_what_each_window_sees_is_the_picture(size):
    picture = coordinates(size)
    seen = []

    def maps(window):
        seen.append(window.shape)
        return torch.from_numpy(window).float()

    result = sliding_maps(picture, maps, SETTINGS)
    assert set(seen) == {(1, 28, 42, 3)}
    np.testing.assert_allclose(result.numpy(), picture, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_a_constant_on_a_coarse_grid_stays_constant(size):
    result = sliding_maps(
        coordinates(size), lambda window: torch.full((1, 2, 3, 4), 1.5), SETTINGS
    )
    assert result.shape == (*size, 4)
    np.testing.assert_allclose(result.numpy(), 1.5, rtol=1e-6)


def test_windows_that_disagree_are_averaged_by_their_count():
    values = iter([1.0, 5.0])
    result = sliding_maps(
        coordinates((28, 56)), lambda window: torch.full((1, 1, 1, 1), next(values)), SETTINGS
    )[0, :, 0]
    np.testing.assert_allclose(result[:14], 1.0)
    np.testing.assert_allclose(result[14:42], 3.0)
    np.testing.assert_allclose(result[42:], 5.0)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ConfigError, match='leaves gaps'):
        SlidingSettings((28, 42), (29, 14))
    with pytest.raises(ConfigError, match='at least 1'):
        SlidingSettings((28, 42), (0, 14))
