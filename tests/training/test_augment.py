"""Augmented pictures: boxes stay on their objects, whole and of a sensible size."""

from __future__ import annotations

import numpy as np

from groma_ros.training.augment import augment

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
