"""Extrapolation of boxes."""

from __future__ import annotations

import pytest

from groma_ros.tracking.grounding_tracker import GroundingTracker, TrackingConfig
from groma_ros.tracking.questions import Question
from groma_ros.types import Grounding
from tests.tracking.moving import SECOND, scene
from tests.tracking.test_grounding_tracker import answer, at, boxes, ids, inline, standing


@pytest.fixture
def tracker() -> GroundingTracker:
    """It has seen a move right by 200 pixels a second and b stand still; the newest frame is that of 0.3
    s."""
    tracker = GroundingTracker(inline(answer), TrackingConfig(max_coast=0.5))
    for step in range(4):
        tracker.step(
            scene(0.1 * step, {"a": (100 + 20 * step, 100), "b": (300, 200)}), standing("a", "b", version=7)
        )
    return tracker


def test_boxes_go_on_at_their_pace(tracker: GroundingTracker) -> None:
    assert tracker.motion is not None
    later = tracker.motion.at(round(0.5 * SECOND))
    assert (later.version, later.answered, later.asked) == (7, round(0.3 * SECOND), "")
    assert later.age == pytest.approx(0.2)
    moved, still = boxes(later)
    assert moved == pytest.approx(at(200, 100), abs=1) and still == at(300, 200)
    assert ids(later) == ["1", "2"] and {item.region for g in later.groundings for item in g.detections} == {
        -1
    }


def test_the_frame_itself_is_where_it_was(tracker: GroundingTracker) -> None:
    assert tracker.motion is not None
    same = tracker.motion.at(round(0.3 * SECOND))
    assert boxes(same) == [at(160, 100), at(300, 200)]


@pytest.mark.parametrize("seconds", [-5.0, -0.5, 1.1, 100.0])
def test_answers_about_frames_long_before_or_after_are_stale(
    tracker: GroundingTracker, seconds: float
) -> None:
    assert tracker.motion is not None
    found = tracker.motion.at(round(seconds * SECOND))
    assert [item.status for item in found.groundings] == ["stale", "stale"] and boxes(found) == []


def test_absence_is_stale_by_its_age_alone() -> None:
    def nothing(question: Question) -> list[Grounding]:
        return [Grounding(goal, (), 0.05, 0.0, status="absent") for goal in question.standing.goals]

    tracker = GroundingTracker(inline(nothing), TrackingConfig(max_answer_age=2.0))
    tracker.step(scene(0.0, {"a": (100, 100)}), standing("c"))
    assert tracker.motion is not None
    told = [tracker.motion.at(round(seconds * SECOND)).groundings[0].status for seconds in (0.1, 1.9, 2.1)]
    assert told == ["absent", "absent", "stale"]


def test_slow_perception_is_carried_until_the_next_frame_is_perceived() -> None:
    """A frame in 0.8 seconds: the motion of one must reach until the next is known, 1.6 seconds later."""
    tracker = GroundingTracker(inline(answer), TrackingConfig(max_coast=0.5))
    for step in range(3):
        tracker.step(scene(0.8 * step, {"a": (100 + 40 * step, 100)}), standing("a"))
    assert tracker.motion is not None
    assert boxes(tracker.motion.at(round(3.2 * SECOND)))[0] == pytest.approx(at(260, 100), abs=1)


def test_a_frame_a_little_older_is_carried_back(tracker: GroundingTracker) -> None:
    assert tracker.motion is not None
    assert boxes(tracker.motion.at(round(0.2 * SECOND)))[0] == pytest.approx(at(140, 100), abs=1)


def test_boxes_are_cut_at_the_picture_and_gone_beyond_it() -> None:
    tracker = GroundingTracker(inline(answer), TrackingConfig(max_coast=5.0))
    for step in range(4):
        tracker.step(scene(0.1 * step, {"a": (540 + 20 * step, 100)}), standing("a"))
    assert tracker.motion is not None
    cut, gone = tracker.motion.at(round(0.5 * SECOND)), tracker.motion.at(round(2.0 * SECOND))
    assert boxes(cut)[0][2] == 640.0 and boxes(gone) == [] and gone.groundings[0].status == "stale"


def test_without_an_answer_there_is_nothing_to_carry() -> None:
    tracker = GroundingTracker(inline(answer))
    assert tracker.motion is None
    tracker.step(scene(0, {"a": (100, 100)}), standing())
    assert tracker.motion is not None and tracker.motion.at(0).groundings == ()
