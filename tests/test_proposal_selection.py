"""Threshold, non-maximum suppression and order of regions."""

import numpy as np
import pytest

from groma_ros.proposal_selection import SelectionRule, select_regions

BOXES = np.array(
    [[0.8, 0.5, 0.2, 0.2], [0.2, 0.5, 0.2, 0.2], [0.21, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]], np.float32
)
SCORES = np.array([0.5, 0.6, 0.9, 0.15], np.float32)


def test_regions_are_the_best_of_each_place_from_left_to_right() -> None:
    chosen = select_regions(BOXES, SCORES, SelectionRule())
    assert chosen.candidates.tolist() == [2, 0]  # 3 is not above the threshold, 1 is suppressed by 2
    np.testing.assert_array_equal(chosen.boxes, BOXES[[2, 0]])
    np.testing.assert_array_equal(chosen.scores, SCORES[[2, 0]])
    assert select_regions(BOXES, SCORES, SelectionRule(limit=1)).candidates.tolist() == [2]


def test_an_injected_order_permutes_best_first() -> None:
    assert select_regions(
        BOXES, SCORES, SelectionRule(0.1), permutation=np.array([1, 2, 0])
    ).candidates.tolist() == [0, 3, 2]
    with pytest.raises(ValueError, match="2 entries for 3 regions"):
        select_regions(BOXES, SCORES, SelectionRule(0.1), permutation=np.array([1, 0]))


def test_a_user_box_joins_wins_over_what_it_overlaps_and_is_found_again() -> None:
    user = np.array([[0.8, 0.5, 0.2, 0.21], [0.5, 0.1, 0.1, 0.1]], np.float32)
    chosen = select_regions(BOXES, SCORES, SelectionRule(), user)
    assert chosen.candidates.tolist() == [2, 5, 4]
    assert chosen.user.tolist() == [2, 1]
    np.testing.assert_array_equal(chosen.boxes[chosen.user], user)


def test_two_user_boxes_on_one_another_share_the_survivor() -> None:
    user = np.array([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.21]], np.float32)
    chosen = select_regions(BOXES, SCORES, SelectionRule(), user)
    assert chosen.candidates.tolist() == [2, 4, 0] and chosen.user.tolist() == [1, 1]


def test_a_true_box_joins_with_a_low_score() -> None:
    true = np.array([[0.5, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.2]], np.float32)
    chosen = select_regions(BOXES, SCORES, SelectionRule(), true_boxes=true)
    assert chosen.candidates.tolist() == [2, 4, 0]  # the second is suppressed by the proposal on it
    np.testing.assert_allclose(chosen.scores, [0.9, 0.2, 0.5])


def test_the_best_box_stays_when_none_passes_and_none_at_all_is_refused() -> None:
    assert select_regions(BOXES, SCORES, SelectionRule(0.95)).candidates.tolist() == [2]
    with pytest.raises(ValueError, match="no proposal"):
        select_regions(BOXES[:0], SCORES[:0], SelectionRule())
