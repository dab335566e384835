"""Depth noise, by its statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.simulation.depth_noise import LEVELS, DepthNoise, spoil

STEP = (np.where(np.arange(200)[None] < 100, 0.8, 1.6) * np.ones((150, 1))).astype(np.float32)


def spoilt(**figures: float) -> NDArray[Any]:
    return spoil(STEP, DepthNoise(**figures), np.random.default_rng(1))


def test_clean_is_a_copy() -> None:
    result = spoilt()
    np.testing.assert_array_equal(result, STEP)
    assert result is not STEP and result.dtype == np.float32


def test_noise_grows_with_the_square_of_the_distance() -> None:
    result = spoilt(deviation=0.002) - STEP
    assert result[:, :98].std() == pytest.approx(0.002 * 0.64, rel=0.05)
    assert result[:, 102:].std() == pytest.approx(0.002 * 2.56, rel=0.05)


def test_steps_holes_and_blotches() -> None:
    np.testing.assert_allclose(
        np.unique(spoil(STEP * 1.0007, DepthNoise(step=0.005), np.random.default_rng(1))),
        [0.8, 1.6],
        rtol=1e-6,
    )
    assert np.isnan(spoilt(holes=0.1)).mean() == pytest.approx(0.1, abs=0.01)
    assert np.isnan(spoilt(blotches=0.1)).mean() == pytest.approx(0.1, abs=0.01)


def test_only_edges_are_lost_or_bleed() -> None:
    lost = np.isnan(spoilt(lost=0.5))
    assert (
        not lost[:, :99].any()
        and not lost[:, 101:].any()
        and lost[:, 99:101].mean() == pytest.approx(0.5, abs=0.1)
    )
    bled = spoilt(bled=0.5)
    between = (bled > 0.81) & (bled < 1.59)
    assert (
        not between[:, :99].any()
        and not between[:, 101:].any()
        and between[:, 99:101].mean() == pytest.approx(0.5, abs=0.1)
    )


def test_levels_repeat() -> None:
    for noise in LEVELS.values():
        one, other = (spoil(STEP, noise, np.random.default_rng(4)) for _ in range(2))
        np.testing.assert_array_equal(one, other)
