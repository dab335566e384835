"""Drawn boxes and labels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.types import Detection, Goal, Grounding
from groma_ros.visualization import colour, draw_groundings, shorten

GREY = np.full((240, 320, 3), 90, np.uint8)


def grounding(text: str, *boxes: tuple[float, float, float, float]) -> Grounding:
    return Grounding(
        Goal(text), tuple(Detection(box, 0.9, index) for index, box in enumerate(boxes)), 0.8, 0.5
    )


def has(image: NDArray[Any], shade: tuple[int, int, int]) -> NDArray[Any]:
    """Rows and columns where the colour occurs."""
    return np.argwhere((image == shade).all(-1))


def test_the_picture_itself_is_left_alone() -> None:
    before = GREY.copy()
    draw_groundings(GREY, [grounding("mug", (50, 60, 120, 150))])
    assert np.array_equal(GREY, before)


def test_a_box_is_drawn_in_its_goals_colour_along_its_sides() -> None:
    drawn = draw_groundings(GREY, [grounding("a"), grounding("mug", (50, 60, 120, 150))], caption=False)
    assert drawn.shape == GREY.shape
    assert len(has(drawn, colour(0))) == 0
    rows, columns = has(drawn, colour(1)).T
    assert columns.min() == pytest.approx(49, abs=1) and rows.max() == pytest.approx(151, abs=1)
    assert np.array_equal(drawn[100, 85], GREY[0, 0])  # the inside stays visible


def test_captions_name_every_goal_also_the_absent() -> None:
    two = draw_groundings(GREY, [grounding("mug", (50, 60, 120, 150)), grounding("bowl")])
    one = draw_groundings(GREY, [grounding("mug", (50, 60, 120, 150))])
    assert two.shape[1:] == GREY.shape[1:] and two.shape[0] > one.shape[0] > 240
    assert len(has(two[240:], colour(1))) > 20


def test_a_goal_that_was_not_answered_is_not_called_absent() -> None:
    missing = grounding("mug")
    drawn = [
        draw_groundings(GREY, [replace(missing, status=status)]) for status in ("absent", "pending", "stale")
    ]
    assert len({picture.tobytes() for picture in drawn}) == 3


def test_labels_of_boxes_at_one_place_do_not_hide_each_other() -> None:
    box = (100.0, 120.0, 200.0, 200.0)
    drawn = draw_groundings(GREY, [grounding("first", box), grounding("second", box)], caption=False)
    outside = np.concatenate([drawn[:112], drawn[208:]])
    assert len(has(outside, colour(0))) > 150 and len(has(outside, colour(1))) > 150


@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (300, 0, 319, 4), (0, 230, 10, 239), (5, 5, 5, 5)])
def test_boxes_at_the_border_are_drawn(box: tuple[float, float, float, float]) -> None:
    assert draw_groundings(GREY, [grounding("🫖 чайник " * 20, box)]).shape[1] == 320


def test_a_tiny_picture_can_be_drawn_on() -> None:
    assert draw_groundings(GREY[:2, :2], [grounding("mug", (0, 0, 1, 1))]).shape[1] == 2


def test_without_goals_the_picture_is_the_same() -> None:
    assert np.array_equal(draw_groundings(GREY, []), GREY)


def test_label_has_id_after_score_and_note_at_the_bottom() -> None:
    named = Grounding(Goal("mug"), (Detection((50, 60, 120, 150), 0.9, 0, "17"),), 0.9, 0.5)
    plain = Grounding(Goal("mug"), (Detection((50, 60, 120, 150), 0.9, 0),), 0.9, 0.5)
    with_id, without = (
        draw_groundings(GREY, [named], caption=False),
        draw_groundings(GREY, [plain], caption=False),
    )
    changed = np.argwhere((with_id != without).any(-1))
    # Only the label differs: it is longer, above the box, and as high as before.
    assert len(changed) and changed[:, 0].max() < 60 and changed[:, 1].max() > 120
    noted, bare = draw_groundings(GREY, [plain], note="30.0 Hz"), draw_groundings(GREY, [plain])
    assert noted.shape[0] > bare.shape[0] and (noted[bare.shape[0] :] != 24).any()
    np.testing.assert_array_equal(noted[: bare.shape[0] - 8], bare[:-8])
    assert (
        draw_groundings(GREY, [], note="30.0 Hz").shape[0]
        > GREY.shape[0]
        == draw_groundings(GREY, []).shape[0]
    )


@pytest.mark.parametrize(
    "box", [(50, 60, 120, 150), (2, 2, 120, 150), (2, 60, 318, 238), (200, 2, 318, 238), (2, 2, 160, 238)]
)
def test_a_label_never_covers_its_object(box: tuple[float, float, float, float]) -> None:
    drawn = draw_groundings(GREY, [grounding("the red mug", box)], caption=False)
    x1, y1, x2, y2 = (int(value) for value in box)
    inside = drawn[y1 + 4 : y2 - 3, x1 + 4 : x2 - 3]
    assert (inside == GREY[0, 0]).all()
    # The label is there: more of the colour than the outline alone has.
    bare = draw_groundings(GREY, [Grounding(Goal(""), (), 0.8, 0.5)], caption=False)
    label = np.argwhere((drawn != bare).any(-1))
    outside = [(r, c) for r, c in label if r < y1 - 3 or r > y2 + 3 or c < x1 - 3 or c > x2 + 3]
    assert len(outside) > 500


def test_a_label_without_room_outside_its_box_is_left_out() -> None:
    drawn = draw_groundings(GREY, [grounding("the wall", (2, 2, 317, 237))], caption=False)
    assert (drawn[6:234, 6:314] == GREY[0, 0]).all()


def test_a_label_avoids_other_objects_where_it_can() -> None:
    below, above = (100.0, 120.0, 200.0, 200.0), (90.0, 80.0, 210.0, 116.0)
    drawn = draw_groundings(GREY, [grounding("low", below), grounding("high", above)], caption=False)
    assert (drawn[84:112, 94:206] == GREY[0, 0]).all()


@pytest.mark.parametrize("box", [(100, 120, 200, 200), (0, 0, 319, 239), (0, 100, 60, 200)])
def test_two_goals_on_one_object_show_both_colours(box: tuple[float, float, float, float]) -> None:
    drawn = draw_groundings(GREY, [grounding("a cup", box), grounding("a mug", box)], caption=False)
    middle = (int(box[1]) + int(box[3])) // 2
    row = drawn[middle, :, :]
    for number in (0, 1):
        assert (row == colour(number)).all(-1).sum() >= 2, number


def test_long_goals_lose_their_middle() -> None:
    assert shorten("the red mug left of the blue box", 20) == "the red m...blue box"
    assert shorten("the red mug", 11) == "the red mug"
    assert shorten("чайник", 10) == "??????"
    assert len(shorten("x" * 99, 28)) == 28
