"""Augmented pictures: boxes stay on their objects, whole and of a sensible size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from groma_ros.training.augment import CUT_LEAST, augment, cut_crop, recoloured
from groma_ros.training.detection import touches_border

SIDE = 200


def test_boxes_follow_their_objects_nearer_farther_and_mirrored() -> None:
    image = np.full((SIDE, SIDE, 3), 20, np.uint8)
    box = np.array([[60, 90, 110, 150]], np.float32)
    image[90:150, 60:110] = 230
    areas = []
    for seed in range(200):
        picture, placed = augment(image, box, 2 * SIDE, np.random.default_rng(seed))
        assert picture.shape == (2 * SIDE, 2 * SIDE, 3) and placed.shape == (1, 4)
        bright = picture.mean(-1) > 125
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / (2 * SIDE)
        cx, cy, width, height = placed[0]
        wanted = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
        np.testing.assert_allclose(seen, wanted, atol=0.015)
        areas.append(width * height / (50 * 60 / SIDE**2))
    # Half as wide and high where it is farthest, and cropped closely where it is nearest.
    assert 0.24 < min(areas) < 0.4 and max(areas) > 1.5
    assert 0.1 < np.mean(np.array(areas) < 0.99) < 0.4


def test_a_cut_object_keeps_the_box_of_what_is_seen_of_it() -> None:
    image = np.full((SIDE, SIDE, 3), 20, np.uint8)
    boxes = np.array([[60, 90, 110, 150], [150, 20, 180, 60]], np.float32)
    image[90:150, 60:110], image[20:60, 150:180] = 230, 120
    cut = gone = 0
    for seed in range(200):
        picture, seen, kept = cut_crop(image, boxes, np.random.default_rng(seed))
        for index, box in zip(kept, seen, strict=True):
            rows, columns = np.nonzero(picture[..., 0] == (230, 120)[index])
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, found)
            share = (
                (found[2] - found[0]) * (found[3] - found[1]) / (boxes[index, 2:] - boxes[index, :2]).prod()
            )
            assert share >= CUT_LEAST
            cut += share < 0.95
        # An object that has no box is not in the picture either.
        assert sorted({230, 120} & set(np.unique(picture))) == sorted((230, 120)[index] for index in kept)
        gone += len(kept) < 2
    assert cut > 60 and gone > 15


def test_recoloured_pictures_keep_their_greys_and_brightness_and_turn_every_hue_alike() -> None:
    image = np.array([[[200, 20, 20], [20, 160, 30], [10, 10, 10], [240, 240, 240]]], np.uint8)
    for seed in range(20):
        other = recoloured(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(other[0, 2:], image[0, 2:])
        np.testing.assert_allclose(other.max(-1), image.max(-1), atol=1)
        hues = cv2.cvtColor(np.concatenate([image, other]), cv2.COLOR_RGB2HSV)[..., 0].astype(int)
        turns = (hues[1, :2] - hues[0, :2]) % 180
        assert abs(turns[0] - turns[1]) <= 2 and 18 <= turns[0] <= 162


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        ((1, 1, 199, 99), False),
        ((0, 1, 50, 50), True),
        ((1, 0, 50, 50), True),
        ((1, 1, 200, 50), True),
        ((1, 1, 50, 100), True),
    ],
)
def test_an_object_at_the_border_is_cut_by_it(box: tuple[float, ...], touches: bool) -> None:
    boxes = np.array([(20, 20, 40, 40), box], np.float32)
    assert touches_border(boxes, np.zeros((100, 200, 3), np.uint8)) is touches
    assert not touches_border(boxes[:0], np.zeros((100, 200, 3), np.uint8))
