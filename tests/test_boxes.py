"""Box formats and operations, against independent computations and by property."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.boxes import box_iou, clip_xyxy, cxcywh_to_xyxy, left_to_right, nms, xyxy_to_cxcywh

SIZES = [(640, 480), (480, 640), (224, 224), (1920, 1080), (3, 1000)]


def _boxes(rng: np.random.Generator, count: int, width: int, height: int) -> NDArray[Any]:
    corner = rng.uniform(0, 0.9, (count, 2)) * (width, height)
    return np.concatenate([corner, corner + rng.uniform(0.01, 0.5, (count, 2)) * (width, height)], 1).astype(
        np.float32
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_there_and_back_is_the_same_box_for_every_size_and_aspect(size: tuple[int, int]) -> None:
    boxes = _boxes(np.random.default_rng(3), 200, *size)
    back = cxcywh_to_xyxy(xyxy_to_cxcywh(boxes, *size), *size)
    np.testing.assert_allclose(back, boxes, atol=1e-6 * max(size) * 4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fractions_do_not_change_when_the_image_is_stretched(size: tuple[int, int]) -> None:
    width, height = size
    boxes = _boxes(np.random.default_rng(4), 50, width, height)
    stretched = boxes * np.array([448 / width, 448 / height] * 2, np.float32)
    np.testing.assert_allclose(
        xyxy_to_cxcywh(stretched, 448, 448), xyxy_to_cxcywh(boxes, width, height), atol=2e-6
    )


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[1 / 3, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], atol=1e-7)


def test_iou_is_symmetric_and_at_most_one() -> None:
    boxes = _boxes(np.random.default_rng(5), 60, 640, 480)
    overlap = box_iou(boxes, boxes)
    np.testing.assert_allclose(overlap, overlap.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-6)
    assert overlap.max() <= 1 + 1e-6 and overlap.min() >= 0


def test_nms_keeps_the_best_and_only_suppresses_above_the_threshold() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 5.9], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.95], np.float32)
    # IoU with the first: exactly 0.6 is kept, 0.59 is kept; the third overlaps the second by 0.98 and goes.
    assert nms(boxes, scores, 0.6, 10).tolist() == [3, 0, 1]
    assert nms(boxes, scores, 0.6, 2).tolist() == [3, 0]
    assert nms(boxes[:0], scores[:0], 0.6, 5).tolist() == []


def test_nms_agrees_with_the_plain_definition() -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        boxes, scores = _boxes(rng, 40, 100, 100), rng.random(40).astype(np.float32)
        alive = list(np.argsort(-scores, kind="stable"))
        expected = []
        while alive:
            best = alive.pop(0)
            expected.append(int(best))
            alive = [i for i in alive if box_iou(boxes[[best]], boxes[[i]])[0, 0] <= 0.5]
        assert nms(boxes, scores, 0.5, 100).tolist() == expected


def test_regions_are_named_left_to_right_then_top_down() -> None:
    boxes = np.array(
        [[0.5, 0.5, 0.1, 0.1], [0.2, 0.9, 0.1, 0.1], [0.2, 0.1, 0.1, 0.1], [0.9, 0, 1, 1]], np.float32
    )
    assert left_to_right(boxes).tolist() == [2, 1, 0, 3]


def test_clipping_keeps_boxes_inside_the_image() -> None:
    assert clip_xyxy(np.array([[-5, 3, 700, 500]], np.float32), 640, 480).tolist() == [[0, 3, 640, 480]]
