"""Drawn boxes and labels."""

import numpy as np
import pytest

from groma_ros.types import Detection, Goal, Grounding
from groma_ros.visualization import colour, draw_groundings

GREY = np.full((240, 320, 3), 90, np.uint8)


def grounding(text: str, *boxes: tuple[float, float, float, float]) -> Grounding:
    return Grounding(
        Goal(text), tuple(Detection(box, 0.9, index) for index, box in enumerate(boxes)), 0.8, 0.5
    )


def has(image: np.ndarray, shade: tuple[int, int, int]) -> np.ndarray:
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


def test_labels_of_boxes_at_one_place_do_not_hide_each_other() -> None:
    box = (100.0, 120.0, 200.0, 200.0)
    drawn = draw_groundings(GREY, [grounding("first", box), grounding("second", box)], caption=False)
    above = drawn[:118]
    assert len(has(above, colour(0))) > 150 and len(has(above, colour(1))) > 150


@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (300, 0, 319, 4), (0, 230, 10, 239), (5, 5, 5, 5)])
def test_boxes_at_the_border_are_drawn(box: tuple[float, float, float, float]) -> None:
    assert draw_groundings(GREY, [grounding("🫖 чайник " * 20, box)]).shape[1] == 320


def test_a_tiny_picture_can_be_drawn_on() -> None:
    assert draw_groundings(GREY[:2, :2], [grounding("mug", (0, 0, 1, 1))]).shape[1] == 2


def test_without_goals_the_picture_is_the_same() -> None:
    assert np.array_equal(draw_groundings(GREY, []), GREY)


def test_an_id_stands_behind_the_score_and_a_note_below_all() -> None:
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
