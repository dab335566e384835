"""When the language model is asked, and which answers hold in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from groma_ros.tracking import grounding_tracker
from groma_ros.tracking.executor import AnswerExecutor, Ask, InlineExecutor, asking
from groma_ros.tracking.grounding_tracker import GroundingTracker, TrackingConfig
from groma_ros.tracking.questions import Question, Reply, StandingGoals, TrackedAnswer
from groma_ros.tracking.region_tracker import Track
from groma_ros.types import Detection, Goal, Grounding, Scene
from tests.tracking.moving import look, scene

Centres = Mapping[str, tuple[float, float]]


def answer(question: Question) -> list[Grounding]:
    """A language model that recognises objects by their token: a goal names one."""
    found = []
    for goal in question.standing.goals:
        likeness = question.scene.region_tokens @ look(goal.text)
        hits = [index for index, value in enumerate(likeness) if value > 0.8]
        boxes = [tuple(float(x) for x in question.scene.boxes[index]) for index in hits]
        detections = tuple(Detection(box, 0.9, index) for box, index in zip(boxes, hits, strict=True))  # type: ignore[arg-type]
        found.append(Grounding(goal, detections, 0.95 if hits else 0.05, 0.5))
    return found


def inline(answer: Callable[[Question], list[Grounding]]) -> Ask:
    return asking(InlineExecutor(), answer)


@dataclass
class Later:
    """A language model whose answers are released on request; the first is immediate."""

    open: list[tuple[Question, Future[Reply]]] = field(default_factory=list)
    asked: int = 0
    error: Exception | None = None
    answer: Callable[[Question], list[Grounding]] = answer

    def ask(self, question: Question) -> Future[Reply]:
        future: Future[Reply] = Future()
        self.open.append((question, future))
        self.asked += 1
        if self.asked == 1:
            self.let()
        return future

    def let(self) -> None:
        """Release the open answer."""
        for question, future in self.open:
            if self.error is not None:
                future.set_exception(self.error)
                self.error = None
            elif not future.cancelled():
                future.set_result(Reply(question, tuple(self.answer(question)), 1.0))
        self.open.clear()


def standing(*texts: str, version: int = 1) -> StandingGoals:
    return StandingGoals(tuple(Goal(text) for text in texts), version)


def ids(tracked: TrackedAnswer) -> list[str]:
    return [item.track_id for grounding in tracked.groundings for item in grounding.detections]


def boxes(tracked: TrackedAnswer) -> list[tuple[float, ...]]:
    return [item.box for grounding in tracked.groundings for item in grounding.detections]


def at(x: float, y: float) -> tuple[float, ...]:
    return (x - 30, y - 30, x + 30, y + 30)


def test_an_answer_at_once_is_that_of_the_frame_with_its_tracks_named() -> None:
    tracker = GroundingTracker(inline(answer))
    for step in range(5):
        tracked = tracker.step(
            scene(0.1 * step, {"a": (100 + 5 * step, 100), "b": (300, 100)}), standing("b", "a", "c")
        )
        assert boxes(tracked) == [at(300, 100), at(100 + 5 * step, 100)] and ids(tracked) == ["2", "1"]
        assert [item.present > 0.5 for item in tracked.groundings] == [True, True, False]
        assert (tracked.version, tracked.answered, tracked.age) == (1, round(1e8 * step), 0.0)
        assert tracked.asked == ("first answer" if step == 0 else "period")


def test_boxes_move_with_their_objects_while_the_model_thinks() -> None:
    line = Later()
    tracker = GroundingTracker(line.ask, TrackingConfig(answer_period=0.0))
    first = tracker.step(scene(0, {"a": (100, 100), "b": (300, 100)}), standing("a"))
    assert first.asked == "first answer" and boxes(first) == [at(100, 100)]
    for step in range(1, 10):
        tracked = tracker.step(
            scene(0.1 * step, {"b": (300, 100), "a": (100 + 9 * step, 100)}), standing("a")
        )
        assert boxes(tracked) == [at(100 + 9 * step, 100)] and ids(tracked) == ids(first)
        assert tracked.groundings[0].detections[0].region == 1
        assert (tracked.answered, tracked.age) == (0, pytest.approx(0.1 * step))
    assert line.asked == 2, "one answered, one in the model's hands"
    line.let()
    newer = tracker.step(scene(1.0, {"a": (190, 100)}), standing("a"))
    assert newer.answered == round(1e8) and ids(newer) == ids(first)


def test_new_goals_are_pending_until_they_are_answered_and_kept_ones_go_on() -> None:
    line = Later()
    tracker = GroundingTracker(line.ask)
    objects: Centres = {"a": (100, 100), "b": (300, 100)}
    tracker.step(scene(0, objects), standing("a"))
    new = standing("b", "a", version=2)
    told = tracker.step(scene(0.1, objects), new)
    assert (told.version, told.asked, told.answered) == (2, "new goals", 0)
    assert [item.status for item in told.groundings] == ["pending", "present"]
    assert [item.goal.text for item in told.groundings] == ["b", "a"] and boxes(told) == [at(100, 100)]
    line.let()
    told = tracker.step(scene(0.2, objects), new)
    assert (told.version, boxes(told), told.answered) == (2, [at(300, 100), at(100, 100)], round(1e8))
    assert [item.status for item in told.groundings] == ["present", "present"]


def test_goals_that_change_ten_times_within_one_answer_cost_one_more_question() -> None:
    line, objects = Later(), {"a": (100.0, 100.0), "b": (300.0, 100.0)}
    tracker = GroundingTracker(line.ask)
    tracker.step(scene(0, objects), standing("a"))
    for version in range(2, 12):
        tracker.step(scene(0.1 * version, objects), standing("ab"[version % 2], version=version))
    assert line.asked == 2
    line.let()
    told = tracker.step(scene(1.2, objects), standing("b", version=11))
    assert line.asked == 3 and told.version == 11 and boxes(told) == []
    line.let()
    assert boxes(tracker.step(scene(1.3, objects), standing("b", version=11))) == [at(300, 100)]


def test_a_frame_never_waits_for_a_slow_model() -> None:
    """A model that takes longer than the tracker's gap: every frame has an output, and one frame after the
    first answer on, every output has the goal's box."""
    line, asked_at, outputs = Later(), 0.0, []
    line.asked = 1  # nothing is answered at once
    tracker = GroundingTracker(line.ask, TrackingConfig(answer_wait=0.0))
    for step in range(300):
        now = 0.1 * step
        if line.open and now - asked_at >= 2.5:
            line.let()
        outputs.append(tracker.step(scene(now, {"a": (100 + step, 100)}), standing("a")))
        asked_at = now if outputs[-1].asked else asked_at
    assert len(outputs) == 300 and [item.groundings[0].status for item in outputs[:25]] == ["pending"] * 25
    assert [boxes(item) for item in outputs[26:]] == [[at(100 + step, 100)] for step in range(26, 300)]
    assert {item.groundings[0].detections[0].track_id for item in outputs[26:]} == {"1"}


def test_frames_that_were_not_processed_are_no_gap() -> None:
    """One frame in three seconds is processed, and all that arrive count."""
    tracker = GroundingTracker(Later().ask)
    arrived, told = tracker.regions.continuity, []
    for step in range(61):
        stream = arrived.arrived(round(0.1 * step * 1e9), 2.0)
        if step % 30 == 0:
            told.append(tracker.step(scene(0.1 * step, {"a": (100, 100)}), standing("a"), stream))
    assert [ids(item) for item in told] == [["1"]] * 3
    stream = arrived.arrived(round(8.5e9), 2.0)
    gone = tracker.step(scene(8.5, {"a": (100, 100)}), standing("a"), stream)
    assert gone.groundings[0].status == "pending"


def test_an_answer_that_is_too_old_is_stale() -> None:
    line = Later()
    tracker = GroundingTracker(line.ask, TrackingConfig(answer_period=1.0, max_answer_age=0.5))
    told = [tracker.step(scene(0.4 * step, {"a": (100, 100)}), standing("a", "c")) for step in range(6)]
    assert [item.groundings[0].status for item in told] == ["present"] * 4 + ["stale"] * 2
    assert boxes(told[3]) == [at(100, 100)] and boxes(told[4]) == []
    assert told[5].groundings[1].detections == () and told[5].answered == 0
    line.let()
    assert boxes(tracker.step(scene(2.4, {"a": (100, 100)}), standing("a", "c"))) == [at(100, 100)]


def test_absence_grows_as_old_as_presence() -> None:
    def nothing(question: Question) -> list[Grounding]:
        return [Grounding(goal, (), 0.05, 0.0, status="absent") for goal in question.standing.goals]

    tracker = GroundingTracker(Later(answer=nothing).ask, TrackingConfig(max_answer_age=1.0))
    told = [tracker.step(scene(0.4 * step, {"a": (100, 100)}), standing("c")) for step in range(5)]
    assert [item.groundings[0].status for item in told] == ["absent"] * 3 + ["stale"] * 2


def test_the_runners_up_of_an_ambiguous_answer_are_carried() -> None:
    def close(question: Question) -> list[Grounding]:
        first, second = (tuple(map(float, box)) for box in question.scene.boxes[:2])
        return [
            Grounding(
                question.standing.goals[0],
                (Detection(first, 0.5, 0),),  # type: ignore[arg-type]
                0.9,
                0.01,
                status="ambiguous",
                alternatives=(Detection(second, 0.49, 1),),  # type: ignore[arg-type]
            )
        ]

    tracker = GroundingTracker(Later(answer=close).ask)
    for step in range(3):
        told = tracker.step(
            scene(0.1 * step, {"a": (100 + 9 * step, 100), "b": (300 + 9 * step, 100)}), standing("it")
        )
    (found,) = told.groundings
    assert found.status == "ambiguous" and boxes(told) == [at(118, 100)]
    assert [item.box for item in found.alternatives] == [at(318, 100)]


def test_a_frame_waits_for_the_answer_to_new_goals_while_the_model_is_quick() -> None:
    asker = AnswerExecutor()
    tracker = GroundingTracker(asking(asker, answer), TrackingConfig(answer_wait=20.0, answer_period=100.0))
    objects: Centres = {"a": (100, 100), "b": (300, 100)}
    for version in range(1, 6):
        name = "ab"[version % 2]
        tracked = tracker.step(scene(0.1 * version, objects), standing(name, version=version))
        assert (tracked.version, tracked.age) == (version, 0.0) and boxes(tracked) == [at(*objects[name])]
    assert asker.stop(10)


def test_breaks_of_the_stream_do_not_wait_again_for_a_slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scene breaks the stream and asks again; only the first waits."""
    waits: list[float] = []
    monkeypatch.setattr(grounding_tracker, "wait", lambda futures, timeout: waits.append(timeout))
    line = Later()
    line.asked = 1  # nothing is answered at once
    tracker = GroundingTracker(line.ask, TrackingConfig(answer_wait=0.2))
    for step in range(5):
        told = tracker.step(scene(0.1 * step, {"a": (100, 100)}), standing("a"), stream=step)
        assert (told.asked, told.groundings[0].status) == ("first answer", "pending")
    assert waits == [0.2] and line.asked == 6
    assert [future.cancelled() for _, future in line.open] == [True] * 4 + [False]


def reasons(scenes: list[Scene], config: TrackingConfig, *goals: str) -> list[str]:
    tracker = GroundingTracker(inline(answer), config)
    return [tracker.step(item, standing(*goals)).asked for item in scenes]


def test_within_the_period_only_a_reason_asks_again() -> None:
    config = TrackingConfig(answer_period=1.0)
    steady = [scene(0.3 * step, {"a": (100, 100)}) for step in range(8)]
    assert reasons(steady, config, "a") == ["first answer", "", "", "", "period", "", "", ""]
    gone = [
        scene(0.2 * step, {"b": (400, 100), **({"a": (100, 100)} if step < 1 else {})}) for step in range(5)
    ]
    assert reasons(gone, TrackingConfig(answer_period=9.0, max_coast=0.5), "a")[:4] == [
        "first answer",
        "",
        "",
        "lost track",
    ]
    crowd = [
        scene(0.1 * step, {"a": (100, 100), **({"x": (400, 100), "y": (400, 300)} if step else {})})
        for step in range(4)
    ]
    assert reasons(crowd, TrackingConfig(answer_period=9.0), "a") == ["first answer", "", "changed scene", ""]
    swapped = [scene(0.1 * step, {"a" if step < 3 else "z": (100, 100)}) for step in range(4)]
    assert reasons(swapped, TrackingConfig(answer_period=9.0), "a") == [
        "first answer",
        "",
        "",
        "doubtful track",
    ]


def test_an_unseen_box_coasts_for_a_while_and_is_then_gone() -> None:
    tracker = GroundingTracker(Later().ask, TrackingConfig(answer_period=100.0, max_coast=0.5))
    for step in range(4):
        tracker.step(scene(0.1 * step, {"a": (100 + 20 * step, 100), "b": (400, 300)}), standing("a"))
    coasting = tracker.step(scene(0.5, {"b": (400, 300)}), standing("a"))
    assert coasting.groundings[0].detections[0].region == -1
    assert boxes(coasting)[0][0] == pytest.approx(170, abs=6)
    assert boxes(tracker.step(scene(1.0, {"b": (400, 300)}), standing("a"))) == []


def test_a_box_that_coasts_out_of_the_picture_is_cut_and_then_gone() -> None:
    tracker = GroundingTracker(Later().ask, TrackingConfig(answer_period=100.0, max_coast=5.0))
    for step in range(4):
        tracker.step(scene(0.1 * step, {"a": (560 + 20 * step, 100), "b": (100, 300)}), standing("a"))
    cut = tracker.step(scene(0.4, {"b": (100, 300)}), standing("a"))
    assert boxes(cut)[0][2] == 640.0
    assert boxes(tracker.step(scene(1.0, {"b": (100, 300)}), standing("a"))) == []


def test_after_a_break_nothing_is_carried_over() -> None:
    tracker = GroundingTracker(inline(answer), TrackingConfig(answer_period=100.0))
    before = tracker.step(scene(50, {"a": (100, 100)}), standing("a"))
    after = tracker.step(scene(0, {"a": (300, 100)}), standing("a"))
    assert after.asked == "first answer" and boxes(after) == [at(300, 100)] and ids(after) != ids(before)


def test_an_answer_about_what_is_no_more_is_not_used_and_asked_anew_at_once() -> None:
    line = Later()
    tracker = GroundingTracker(line.ask)
    tracker.step(scene(50, {"a": (100, 100)}), standing("a"))
    tracker.step(scene(50.1, {"a": (100, 100)}), standing("a"))
    assert len(line.open) == 1, "asked on the second frame, not answered yet"
    told = tracker.step(scene(0, {"a": (300, 100)}), standing("a"))
    assert (told.asked, told.answered) == ("first answer", None)
    assert told.groundings[0].status == "pending"
    assert [future.cancelled() for _, future in line.open] == [True, False]
    line.let()
    told = tracker.step(scene(0.1, {"a": (300, 100)}), standing("a"))
    assert (told.answered, boxes(told)) == (0, [at(300, 100)])


def test_without_goals_nothing_is_asked_and_tracks_live_on() -> None:
    line = Later()
    tracker = GroundingTracker(line.ask)
    first = tracker.step(scene(0, {"a": (100, 100)}), standing("a"))
    assert (
        tracker.step(scene(0.1, {"a": (100, 100)}), standing()) == TrackedAnswer((), 1, None, 0.0)
        or line.asked == 1
    )
    again = tracker.step(scene(0.2, {"a": (100, 100)}), standing("a"))
    assert ids(again) == [] and again.groundings[0].status == "pending" and line.asked == 2
    line.let()
    assert ids(tracker.step(scene(0.3, {"a": (100, 100)}), standing("a"))) == ids(first)


def test_what_the_model_raised_is_reported_once_and_the_next_frame_asks_anew() -> None:
    line = Later(error=RuntimeError("out of memory"))
    tracker = GroundingTracker(line.ask)
    told = tracker.step(scene(0, {"a": (100, 100)}), standing("a"))
    assert str(told.failure) == "out of memory" and told.groundings[0].status == "pending"
    line.let()
    told = tracker.step(scene(0.1, {"a": (100, 100)}), standing("a"))
    line.let()
    assert told.asked == "first answer" and told.failure is None
    assert boxes(tracker.step(scene(0.2, {"a": (100, 100)}), standing("a"))) == [at(100, 100)]


def test_no_frame_waits_for_a_model_that_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(grounding_tracker, "wait", lambda futures, timeout: waits.append(timeout))
    line = Later(asked=1, error=RuntimeError("out of memory"))
    tracker = GroundingTracker(line.ask)
    tracker.step(scene(0, {"a": (100, 100)}), standing("a"))
    assert waits == [0.2]
    line.let()
    tracker.step(scene(0.1, {"a": (100, 100)}), standing("a"))
    tracker.step(scene(0.2, {"a": (100, 100)}), standing("a"))
    assert waits == [0.2]


def test_a_closed_executor_leaves_goals_pending() -> None:
    asker = AnswerExecutor()
    tracker = GroundingTracker(asking(asker, answer))
    assert asker.stop(10)
    told = tracker.step(scene(0, {"a": (100, 100)}), standing("a"))
    assert told.groundings[0].status == "pending" and told.answered is None and told.failure is None


def test_the_rule_can_change_between_frames() -> None:
    tracker = GroundingTracker(inline(answer), TrackingConfig(answer_period=100.0))
    tracker.step(scene(0, {"a": (100, 100)}), standing("a"))
    assert tracker.step(scene(0.1, {"a": (100, 100)}), standing("a")).asked == ""
    tracker.set_config(TrackingConfig(answer_period=0.0))
    assert tracker.step(scene(0.2, {"a": (100, 100)}), standing("a")).asked == "period"
    assert tracker.regions.config is tracker.config.tracks


def twice(seconds: float, *seen: str) -> Scene:
    """One object that the proposer finds as two regions that look alike: whole, and a part; a stands
    apart."""
    places: Centres = {"whole": (100, 100), "part": (112, 100), "a": (400, 300)}
    found = scene(seconds, {name: places[name] for name in (*seen, "a")}, noise=0.02)
    tokens = found.region_tokens.copy()
    tokens[: len(seen)] = look("whole") + tokens[: len(seen)] * 0.05
    return replace(found, region_tokens=tokens)


def first_region(question: Question) -> list[Grounding]:
    """A model that names the first region of the scene."""
    x1, y1, x2, y2 = (float(value) for value in question.scene.boxes[0])
    return [
        Grounding(goal, (Detection((x1, y1, x2, y2), 0.9, 0),), 0.9, 0.5) for goal in question.standing.goals
    ]


def test_an_object_keeps_its_id_when_another_region_stands_for_it() -> None:
    tracker = GroundingTracker(inline(first_region), TrackingConfig(answer_period=0.35))
    told = [
        tracker.step(twice(0.1 * step, *seen), standing("it"))
        for step, seen in enumerate(
            [
                ("whole", "part"),
                ("whole", "part"),
                ("part",),
                ("part",),
                ("part",),
                ("part", "whole"),
                ("whole", "part"),
            ]
        )
    ]
    assert [ids(item) for item in told] == [["1"]] * 7
    assert [boxes(item)[0][0] for item in told] == pytest.approx([70, 70, 82, 82, 82, 82, 82], abs=1)
    assert told[4].asked == "period", "asked again, and the part was named"


def test_an_answer_from_before_another_region_took_over_is_about_that_one() -> None:
    line = Later(answer=first_region)
    tracker = GroundingTracker(line.ask, TrackingConfig())
    tracker.step(twice(0.0, "whole", "part"), standing("it"))
    tracker.step(twice(0.1, "whole", "part"), standing("it"))
    assert len(line.open) == 1, "asked while the whole was seen"
    tracker.step(twice(0.2, "part"), standing("it"))
    line.let()
    told = tracker.step(twice(0.3, "part"), standing("it"))
    assert (
        told.answered == round(1e8) and ids(told) == ["1"] and boxes(told)[0][0] == pytest.approx(82, abs=1)
    )


def test_the_first_answer_is_about_the_region_that_took_over_while_it_was_awaited() -> None:
    """The second region appeared after the question and outlived the first."""
    line = Later(answer=first_region, asked=1)
    tracker = GroundingTracker(line.ask, TrackingConfig())
    told = tracker.step(twice(0.0, "whole"), standing("it"))
    assert told.answered is None and len(line.open) == 1
    tracker.step(twice(0.1, "whole", "part"), standing("it"))
    for step in range(2, 20):
        tracker.step(twice(0.1 * step, "part"), standing("it"))
    line.let()
    told = tracker.step(twice(2.0, "part"), standing("it"))
    assert told.answered == 0 and boxes(told) == [pytest.approx((82, 70, 142, 130), abs=1)]


def test_a_region_at_the_last_place_of_an_object_takes_over_whatever_its_velocity_was() -> None:
    """Before it was lost its region had shrunk to the lower part of the object, as if it fell."""
    found = scene(0.4, {"whole": (100, 100), "a": (100, 300)})
    tokens, numbers = found.region_tokens, np.array([7, 8])
    lost = Track(
        1, np.array([70, 95, 130, 130], np.float32), tokens[0], 0, -1, np.array([0, 200], np.float32)
    )
    assert grounding_tracker._successor(lost, found, tokens, numbers, [1]) == 7
    assert grounding_tracker._successor(lost, found, tokens, numbers, [1, 7]) == 0
    assert grounding_tracker._successor(lost, found, tokens[::-1], numbers, [1]) == 0, "it looks different"


def test_two_objects_of_one_answer_never_share_a_region() -> None:
    def both(question: Question) -> list[Grounding]:
        found = tuple(
            Detection((float(x1), float(y1), float(x2), float(y2)), 0.9, index)
            for index, (x1, y1, x2, y2) in enumerate(question.scene.boxes[:2])
        )
        return [Grounding(question.standing.goals[0], found, 0.9, 0.5)]

    tracker = GroundingTracker(inline(both), TrackingConfig(answer_period=100.0, max_coast=0.15))
    tracker.step(twice(0.0, "whole", "part"), standing("them"))
    assert ids(tracker.step(twice(0.1, "whole", "part"), standing("them"))) == ["1", "2"]
    tracker.step(twice(0.2, "part"), standing("them"))
    told = tracker.step(twice(0.4, "part"), standing("them"))
    assert ids(told)[0] == "2" and len(set(ids(told))) == len(ids(told))


def test_an_object_left_out_for_one_answer_gets_its_id_back() -> None:
    """It had its id from another region of it, which is gone by then; in between the model names something
    else."""
    twice = {"a": (100, 100), "aa": (104, 100), "b": (400, 100)}
    named = iter([0, 0, 1, 2, 1, 1])

    def pick(question: Question) -> list[Grounding]:
        region = next(named)
        box = tuple(float(value) for value in question.scene.boxes[region])
        return [Grounding(question.standing.goals[0], (Detection(box, 0.9, region),), 0.9, 0.5)]  # type: ignore[arg-type]

    tracker = GroundingTracker(inline(pick))
    told = [ids(tracker.step(scene(0.1 * step, twice), standing("a"))) for step in range(6)]
    assert told == [["1"], ["1"], ["1"], ["3"], ["1"], ["1"]]
    assert tracker.answer is not None and tracker.answer.former == (((3, 3),),)


def test_an_answer_that_comes_too_late_tells_how_long_one_takes() -> None:
    """After a pause of the camera no frame waits until that is known again."""
    line = Later()
    tracker = GroundingTracker(line.ask)
    for seconds in (0.0, 0.1):
        tracker.step(scene(seconds, {"a": (100, 100)}), standing("a"))
    ((question, late),) = line.open
    late.set_running_or_notify_cancel()
    gone = tracker.step(scene(60.0, {"a": (100, 100)}), standing("a"))
    assert gone.groundings[0].status == "pending" and tracker._answer_seconds == np.inf
    late.set_result(Reply(question, (), 0.1))
    assert tracker._answer_seconds == 0.1
