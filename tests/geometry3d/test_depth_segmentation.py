"""Segmentation of the object in a box, on small depth images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.geometry3d.depth_segmentation import cut_at_jumps, select, smoothed


def test_a_jump_takes_out_its_farther_side() -> None:
    depth = np.array([[1.0, 1.01, 1.2, 1.21, np.nan, 1.0, 0.7, 1.0]] * 2, np.float32)
    known = np.isfinite(depth)
    left = cut_at_jumps(depth, known, 0.05, 0.0)
    assert left[0].tolist() == [True, True, False, True, False, False, True, False]
    np.testing.assert_array_equal(left.T, cut_at_jumps(depth.T, known.T, 0.05, 0.0))
    # The bound grows with the nearer depth, and pixels that are not raised cut nothing off.
    assert cut_at_jumps(depth, known, 0.05, 0.15)[0].tolist() == [True] * 4 + [False, False, True, False]
    raised = known & (depth != np.float32(0.7))
    assert cut_at_jumps(depth, raised, 0.05, 0.0)[0].tolist() == [
        True,
        True,
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def picture(*rectangles: tuple[int, int, int, int]) -> NDArray[Any]:
    """40x60 pixels, set in xyxy rectangles."""
    mask = np.zeros((40, 60), bool)
    for x1, y1, x2, y2 in rectangles:
        mask[y1:y2, x1:x2] = True
    return mask


LEVEL = np.ones((40, 60), np.float32)
FOCAL = 50.0  # pixels


def test_the_piece_whose_own_box_agrees_is_the_thing() -> None:
    thing, neighbour, speck = (10, 10, 30, 30), (31, 5, 50, 35), (12, 32, 14, 34)
    mask, fit = select(picture(thing, neighbour, speck), LEVEL, FOCAL, (10, 10, 33, 30), 20)
    np.testing.assert_array_equal(mask, picture(thing))
    assert fit == 20 / 23


def test_a_thing_in_two_pieces_is_joined_and_what_does_not_help_is_left_out() -> None:
    left, right, inside = (10, 10, 18, 30), (22, 10, 30, 30), (19, 15, 21, 17)
    mask, fit = select(picture(left, right, inside), LEVEL, FOCAL, (10, 10, 30, 30), 20)
    np.testing.assert_array_equal(mask, picture(left, right))
    assert fit == 1


@pytest.mark.parametrize(("behind", "joined"), [(1.1, True), (1.3, False), (0.9, True), (0.7, False)])
def test_what_is_seen_through_a_thing_is_not_part_of_it(behind: float, joined: bool) -> None:
    trunk, window = (10, 10, 24, 30), (25, 10, 30, 30)  # of a box of 20 x 20 pixels, 0.4 m at 1 m
    depth = LEVEL.copy()
    depth[:, 25:] = behind
    mask, fit = select(picture(trunk, window), depth, FOCAL, (10, 10, 30, 30), 20)
    np.testing.assert_array_equal(mask, picture(trunk, window) if joined else picture(trunk))
    assert fit == pytest.approx(1 if joined else 0.7)


def test_a_few_stray_pixels_do_not_join_what_is_behind() -> None:
    trunk, window = (10, 10, 24, 30), (25, 10, 30, 30)
    depth = LEVEL.copy()
    depth[:, 25:] = 1.3
    depth[10, 25:28] = 1.05  # of 100 pixels
    mask, _ = select(picture(trunk, window), depth, FOCAL, (10, 10, 30, 30), 20)
    np.testing.assert_array_equal(mask, picture(trunk))


def test_what_sticks_far_out_of_the_box_is_cut_at_it() -> None:
    mask, fit = select(picture((0, 10, 60, 30)), LEVEL, FOCAL, (20, 10, 40, 30), 20)
    np.testing.assert_array_equal(mask, picture((19, 10, 41, 30)))
    assert fit == 1 / 3


def test_too_little_is_nothing() -> None:
    for pieces in (picture(), picture((10, 10, 14, 14)), picture((40, 0, 60, 40))):
        mask, fit = select(pieces, LEVEL, FOCAL, (8, 8, 20, 20), 20)
        assert not mask.any() and fit == 0


def test_smoothing_keeps_to_the_mask() -> None:
    depth = np.full((6, 6), 2.0)
    depth[2, 2], depth[:, 3:] = 2.9, np.nan
    result = smoothed(depth, np.isfinite(depth), 3)
    assert np.isnan(result[:, 3:]).all()
    np.testing.assert_allclose(result[1:4, 1], 2.1, rtol=1e-6)
    np.testing.assert_allclose(
        result[2, 2], 2 + 0.9 / 6, rtol=1e-6
    )  # three of nine neighbours are not in the mask
    np.testing.assert_allclose(result[5, 0], 2.0, rtol=1e-6)
