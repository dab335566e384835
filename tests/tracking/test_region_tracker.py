"""Numbers of objects over frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from groma_ros.tracking.region_tracker import RegionTracker, RegionTrackerConfig, unit
from tests.tracking.moving import SECOND, scene


def test_every_object_has_a_number_from_one_and_keeps_it() -> None:
    tracker = RegionTracker()
    assert tracker.update(scene(0, {"a": (100, 100), "b": (300, 100)})).tolist() == [1, 2]
    assert tracker.update(scene(0.1, {"b": (305, 102), "a": (104, 98)})).tolist() == [2, 1]
    assert tracker.update(scene(0.2, {"b": (310, 104), "c": (500, 300), "a": (108, 96)})).tolist() == [
        2,
        3,
        1,
    ]


def test_alike_boxes_are_told_apart_by_their_look_and_alike_looks_by_their_place() -> None:
    tracker = RegionTracker()
    tracker.update(scene(0, {"a": (100, 100), "b": (130, 100)}))
    # They pass each other within one frame: their boxes speak for the other one's number, and their looks
    # decide.
    assert tracker.update(scene(0.1, {"a": (112, 100), "b": (118, 100)})).tolist() == [1, 2]
    assert tracker.update(scene(0.2, {"a": (130, 100), "b": (100, 100)})).tolist() == [1, 2]
    twins = RegionTracker()
    first = scene(0, {"a": (100, 100), "b": (400, 100)})
    same = replace(first, region_tokens=np.stack([first.region_tokens[0]] * 2))
    assert twins.update(same).tolist() == [1, 2]
    assert twins.update(replace(same, boxes=same.boxes[::-1] + 5, stamp=SECOND // 10)).tolist() == [2, 1]


def test_an_object_in_motion_is_expected_ahead() -> None:
    tracker = RegionTracker(RegionTrackerConfig(max_distance=0.0, min_affinity=0.3))
    for step in range(4):
        tracker.update(scene(0.1 * step, {"a": (100 + 50 * step, 100)}))
    track = tracker.tracks[1]
    assert track.velocity == pytest.approx([500, 0], abs=70)
    assert track.at(track.time + SECOND // 10) == pytest.approx(track.box + [50, 0, 50, 0], abs=8)
    # 100 pixels on, where it does not overlap its last box at all.
    assert tracker.update(scene(0.5, {"a": (350, 100)})).tolist() == [1]


def test_an_unseen_object_is_known_for_the_patience_of_the_rule() -> None:
    tracker = RegionTracker(RegionTrackerConfig(max_age=1.0))
    tracker.update(scene(0, {"a": (100, 100), "b": (300, 100)}))
    for step in range(1, 10):
        tracker.update(scene(0.1 * step, {"b": (300, 100)}))
    assert tracker.tracks[1].region == -1
    assert tracker.update(scene(1.0, {"a": (100, 100), "b": (300, 100)})).tolist() == [1, 2]
    for step in range(11, 23):
        tracker.update(scene(0.1 * step, {"b": (300, 100)}))
    assert tracker.update(scene(2.3, {"a": (100, 100), "b": (300, 100)})).tolist() == [3, 2]


@pytest.mark.parametrize(
    "later",
    [scene(10, {"a": (100, 100)}), scene(-10, {"a": (100, 100)}), scene(0.1, {"a": (100, 100)}, width=320)],
)
def test_after_a_break_all_numbers_are_new(later: object) -> None:
    tracker = RegionTracker()
    tracker.update(scene(0, {"a": (100, 100)}))
    assert tracker.epoch == 0
    assert tracker.update(later).tolist() == [2] and tracker.epoch == 1  # type: ignore[arg-type]


def test_a_frame_out_of_order_gets_its_numbers_and_moves_nothing() -> None:
    tracker = RegionTracker()
    tracker.update(scene(0.0, {"a": (100, 100)}))
    tracker.update(scene(0.2, {"a": (120, 100)}))
    before = tracker.tracks[1].box.copy()
    assert tracker.update(scene(0.1, {"a": (110, 100), "late": (400, 300)})).tolist() == [1, 0]
    assert (tracker.tracks[1].box == before).all() and set(tracker.tracks) == {1}


def test_a_stamp_twice_and_no_regions_are_taken() -> None:
    tracker = RegionTracker()
    tracker.update(scene(0.0, {"a": (100, 100)}))
    assert tracker.update(scene(0.0, {"a": (102, 100)})).tolist() == [1]
    assert tracker.update(scene(0.1, {})).tolist() == []
    assert tracker.update(scene(0.2, {"a": (102, 100)})).tolist() == [1]


def test_a_changed_look_shows_in_the_likeness() -> None:
    tracker = RegionTracker()
    for step in range(5):
        tracker.update(scene(0.1 * step, {"a": (100, 100)}, noise=0.01))
    assert tracker.tracks[1].likeness > 0.95
    other = scene(0.5, {"b": (100, 100)})
    tracker.update(other)
    assert tracker.tracks[1].region == 0 and tracker.tracks[1].likeness < 0.6


def test_the_same_scenes_get_the_same_numbers_and_a_crowd_keeps_them() -> None:
    rng = np.random.default_rng(4)
    names = [f"object {index}" for index in range(30)]
    centres = {name: rng.uniform(40, 440, 2) for name in names}
    pace = {name: rng.uniform(-60, 60, 2) for name in names}
    runs = []
    for _ in range(2):
        tracker, kept = RegionTracker(), []
        first: dict[str, int] = {}
        for step in range(40):
            order = list(np.random.default_rng(step).permutation(names))
            moved = {name: tuple(centres[name] + pace[name] * 0.033 * step) for name in order}
            numbers = dict(
                zip(order, tracker.update(scene(0.033 * step, moved, noise=0.05)).tolist(), strict=True)
            )
            first = first or numbers
            kept.append(numbers == first)
        runs.append(first)
        assert all(kept)
    assert runs[0] == runs[1]


def test_tokens_of_zero_or_not_a_number_do_not_spread() -> None:
    assert unit(np.array([[3, 4], [0, 0], [np.nan, 2]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
        [0, 1],
    ]
    tracker = RegionTracker()
    bad = scene(0, {"a": (100, 100)})
    tracker.update(replace(bad, region_tokens=np.full_like(bad.region_tokens, np.nan)))
    assert np.isfinite(tracker.tracks[1].token).all()
    assert tracker.update(scene(0.1, {"a": (100, 100)})).tolist() in ([1], [2])
