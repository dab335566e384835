"""Box matching and ranking, against values by hand and definitions."""

import itertools

import numpy as np
import pytest

from groma_ros.boxes import box_iou
from groma_ros.matching import average_precision, exact_set, found_for, match_boxes

SQUARES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)


def test_each_box_gets_its_own_truth() -> None:
    assert match_boxes(SQUARES[[2, 0]] + 1, SQUARES).tolist() == [2, 0]


def test_two_boxes_on_one_truth_match_once_the_better_one() -> None:
    found = np.array([[2, 0, 12, 10], [1, 0, 11, 10], [100, 0, 110, 10]], np.float32)
    assert match_boxes(found, SQUARES).tolist() == [-1, 0, -1]


def test_the_threshold_itself_is_enough() -> None:
    # Overlap 10x5 of a union 10x10: IoU exactly one half.
    assert match_boxes(np.array([[0, 0, 10, 5]], np.float32), SQUARES).tolist() == [0]
    assert match_boxes(np.array([[0, 0, 10, 4.9]], np.float32), SQUARES).tolist() == [-1]


def test_nothing_matches_nothing() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert match_boxes(empty, SQUARES).tolist() == []
    assert match_boxes(SQUARES, empty).tolist() == [-1, -1, -1]


def test_as_many_pairs_as_possible() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        corner = rng.uniform(0, 8, (8, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, 10, (8, 2))], 1).astype(np.float32)
        found, truth = boxes[:4], boxes[4:]
        allowed = box_iou(found, truth) >= 0.3
        best = max(
            sum(allowed[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(4))
        )
        match = match_boxes(found, truth, 0.3)
        pairs = [(i, j) for i, j in enumerate(match) if j >= 0]
        assert len(pairs) == best
        assert all(allowed[i, j] for i, j in pairs) and len({j for _, j in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("found", "targets", "right"),
    [
        ([0, 1], [1, 0], True),
        ([0], [0, 1], False),
        ([0, 1], [0], False),
        ([0, 2], [0, 1], False),
        ([], [], True),
        ([1], [], False),
    ],
)
def test_a_set_is_right_only_if_whole_and_without_more(
    found: list[int], targets: list[int], right: bool
) -> None:
    assert exact_set(SQUARES[found], SQUARES[targets]) is right


def test_average_precision_of_a_ranking() -> None:
    # Right, wrong, right: precision 1 at the first hit, 2/3 at the second, of three that exist.
    scores, correct = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert average_precision(scores, correct, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(scores, correct, 2) == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_count_as_one_step() -> None:
    assert average_precision(np.ones(4), np.array([True, False, False, False]), 1) == pytest.approx(0.25)
    assert average_precision(np.ones(4), np.array([False, False, False, True]), 1) == pytest.approx(0.25)


def test_average_precision_without_candidates_or_positives() -> None:
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
    assert np.isnan(average_precision(np.ones(2), np.zeros(2, bool), 0))


def test_each_true_box_has_the_one_found_for_it() -> None:
    truth = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [50, 50, 60, 60]], np.float32)
    found = np.array([[100, 0, 110, 1], [200, 200, 210, 210], [0, 0, 10, 10]], np.float32)
    assert found_for(truth, found) == [(2, 1.0), (0, pytest.approx(0.1)), (-1, 0.0)]
    assert found_for(truth, found[:0]) == [(-1, 0.0)] * 3 and found_for(truth[:0], found) == []
