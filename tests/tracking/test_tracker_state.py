"""A restored tracker continues exactly like one that was not interrupted."""

import io

import numpy as np

from groma_ros.tracking.executor import InlineExecutor, asking
from groma_ros.tracking.grounding_tracker import GroundingTracker, TrackingConfig
from groma_ros.tracking.questions import Question, StandingGoals, TrackedAnswer
from groma_ros.tracking.tracker_state import restore_tracker, tracker_arrays
from groma_ros.types import Detection, Goal, Grounding, Scene

STANDING = StandingGoals((Goal("mugs", "all"), Goal("ball")))
RULE = TrackingConfig(answer_period=0.35)


def scenes(count: int = 14) -> list[Scene]:
    """Five objects that drift; one comes late, one goes, and one frame is another size."""
    rng = np.random.default_rng(4)
    tokens, corners = rng.normal(size=(5, 8)).astype(np.float32), rng.uniform(0, 60, (5, 2))
    views = []
    for number in range(count):
        seen = [index for index in range(5) if (index != 3 or number > 5) and (index != 1 or number < 8)]
        left = (corners[seen] + 3 * number).astype(np.float32)
        width = 320 if number == 11 else 200
        views.append(
            Scene(
                np.hstack([left, left + 20]),
                np.ones(len(seen), np.float32),
                tokens[:2],
                tokens[seen],
                None,
                width,
                200,
                number * 100_000_000,
                "camera",
            )
        )
    return views


def answer(question: Question) -> list[Grounding]:
    """The first two regions for one goal, the last for the other; how sure it is differs from frame to
    frame."""
    boxes = [tuple(map(float, box)) for box in question.scene.boxes]
    sure = 1 / (1 + question.scene.stamp / 1e9)
    found = [Detection((b[0], b[1], b[2], b[3]), sure, index) for index, b in enumerate(boxes)]
    return [
        Grounding(
            STANDING.goals[0], tuple(found[:2]), sure, 0.1, status="ambiguous", alternatives=tuple(found[2:3])
        ),
        Grounding(STANDING.goals[1], tuple(found[-1:]), sure / 3, 0.2),
    ]


def plain(tracked: TrackedAnswer) -> object:
    return (
        [
            (item.detections, item.alternatives, item.status, item.present, item.margin)
            for item in tracked.groundings
        ],
        tracked.answered,
        tracked.age,
        tracked.asked,
    )


def test_every_place_to_stop() -> None:
    views = scenes()
    steady = GroundingTracker(asking(InlineExecutor(), answer), RULE)
    wanted = [plain(steady.step(view, STANDING)) for view in views]
    assert {item[3] for item in wanted} >= {"", "first answer", "period"}  # type: ignore[index]
    for stop in range(len(views) + 1):
        first, file = GroundingTracker(asking(InlineExecutor(), answer), RULE), io.BytesIO()
        found = [plain(first.step(view, STANDING)) for view in views[:stop]]
        np.savez(file, **tracker_arrays(first))  # type: ignore[arg-type]
        file.seek(0)
        second = GroundingTracker(asking(InlineExecutor(), answer), RULE)
        with np.load(file, allow_pickle=False) as arrays:
            restore_tracker(second, arrays, STANDING)
        found += [plain(second.step(view, STANDING)) for view in views[stop:]]
        assert found == wanted
