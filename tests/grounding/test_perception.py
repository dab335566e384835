"""Images that cannot be used are refused with a sentence; the next valid one is answered."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal
from tests.small import blocks


@pytest.mark.parametrize(
    ("rgb", "sentence"),
    [
        (np.zeros((0, 0, 3), np.uint8), "The image is empty"),
        (np.zeros((0, 640, 3), np.uint8), "The image is empty"),
        (np.zeros((1, 1, 3), np.uint8), "The image of 1x1 pixels is too small"),
        (np.zeros((480, 1, 3), np.uint8), "The image of 1x480 pixels is too small"),
        (np.zeros((2, 16385, 3), np.uint8), "The image of 16385x2 pixels is too large"),
        (np.zeros((48, 64), np.uint8), "height x width x 3"),
        (np.zeros((48, 64, 4), np.uint8), "height x width x 3"),
        (np.zeros((48, 64, 3), np.float32), "uint8 values, not float32"),
        (np.zeros((48, 64, 3), np.uint16), "uint8 values, not uint16"),
    ],
)
def test_images_that_are_refused(grounder: Grounder, rgb: NDArray[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grounder.perceive(Frame(rgb))
    assert len(grounder.ground(Frame(blocks(1)), [Goal("the red mug")])) == 1


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((48, 64, 3), np.uint8),
        np.full((48, 64, 3), 255, np.uint8),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((3, 1500, 3), np.uint8),
        np.zeros((6000, 8000, 3), np.uint8),
        blocks(4)[:, ::-1],
    ],
    ids=["black", "white", "tiny", "thin", "huge", "not contiguous"],
)
def test_odd_images_are_legal(grounder: Grounder, rgb: NDArray[Any]) -> None:
    scene = grounder.perceive(Frame(rgb))
    height, width = rgb.shape[:2]
    assert len(scene.boxes) >= 1 and np.isfinite(scene.boxes).all() and np.isfinite(scene.region_tokens).all()
    assert (scene.boxes >= 0).all() and (scene.boxes <= [width, height, width, height]).all()
    answer = grounder.ground(scene, [Goal("the red mug")])[0]
    assert 0 <= answer.present <= 1


def test_a_picture_that_is_not_contiguous_is_the_same_picture(grounder: Grounder) -> None:
    flipped = blocks(4)[:, ::-1]
    a, b = grounder.perceive(Frame(flipped)), grounder.perceive(Frame(np.ascontiguousarray(flipped)))
    assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.region_tokens, b.region_tokens)
