"""Stage timing: every stage is measured once and answers do not change."""

import time

import numpy as np
import pytest

from groma_ros.bench.claims import _goals, measure_paths
from groma_ros.bench.stages import ANSWER_TOKENS, STAGES, TimedGrounder
from groma_ros.bench.workload import SINGLE, mixed_goals, pictures, to_frame
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.timing import listening, now, stage, use_clock
from groma_ros.types import Frame, Goal
from tests.small import blocks


@pytest.fixture(scope="module")
def timed() -> TimedGrounder:
    grounder = TimedGrounder.load(shipped_model(), min_presence=0.0, threads=1)
    assert isinstance(grounder, TimedGrounder)
    return grounder


@pytest.fixture(scope="module")
def frame() -> Frame:
    return to_frame(pictures(1, 3)[0][0])


def test_all_stages_of_a_frame(timed: TimedGrounder) -> None:
    goals = mixed_goals(4)
    sample = timed.measure(lambda: Frame(blocks(1)), goals)
    assert set(sample.seconds) == {*STAGES, "total"}
    assert all(sample.seconds[name] > 0 for name in STAGES)
    inside = sum(sample.seconds[name] for name in STAGES if name != "image decode")
    assert inside == pytest.approx(sample.seconds["total"])
    scene = timed.perceive(Frame(blocks(1)))
    regions, tails = len(scene.boxes), [len(timed._goal_ids(goal)) for goal in goals]
    assert (
        sample.counts["regions"] == regions
        and sample.counts["rows"] == 4
        and sample.counts["tail"] == sum(tails)
    )
    # The two placeholders expand into image tokens and pairs.
    assert sample.counts["prefix"] == len(timed._prefix_ids) - 2 + len(scene.image_tokens) + 2 * regions
    assert sample.counts["steps"] <= sample.counts["tokens"] <= sample.counts["steps"] * 3


def test_a_goal_with_regions_sees_twice(timed: TimedGrounder) -> None:
    user = np.array([[3, 4, 30, 40]], np.float32)
    plain = timed.measure(lambda: Frame(blocks(2)), [Goal("the red mug", "one")])
    both = timed.measure(lambda: Frame(blocks(2)), [Goal("the red mug", "one", regions=user)])
    assert both.counts["regions"] > plain.counts["regions"] and both.seconds["encode regions"] > 0
    assert min(both.seconds.values()) >= 0


def test_timing_changes_no_answer(timed: TimedGrounder) -> None:
    plain = Grounder.load(shipped_model(), min_presence=0.0, threads=1)
    goals = mixed_goals(10)
    found, wanted = timed.ground(Frame(blocks(3)), goals), plain.ground(Frame(blocks(3)), goals)
    assert [(a.detections, a.present, a.margin) for a in found] == [
        (b.detections, b.present, b.margin) for b in wanted
    ]


def test_a_generated_answer_is_the_one_read_in_one_step(timed: TimedGrounder, frame: Frame) -> None:
    """The goals are about objects the model reports, so that there is a region to answer with."""
    scene = timed.perceive(frame)
    ends = [timed._tokenizer.id("</roi>"), timed._tokenizer.eos_id]
    for goal in _goals(timed, scene):
        (answer,) = timed.answers(scene, [goal])
        assert timed.generate(scene, goal) == (
            timed._tokenizer.id("<roi>"),
            timed.region_token(answer),
            *ends,
        )
    paths = measure_paths(timed, frame, trained=True)
    assert (paths.same, paths.of) == (len(SINGLE), len(SINGLE)) and paths.tokens >= 3 * paths.of
    assert min(paths.one_step, paths.generated, paths.shared, paths.anew) > 0
    assert measure_paths(timed, frame, trained=False).tokens <= ANSWER_TOKENS * len(SINGLE)


def test_nobody_listens() -> None:
    @stage("double")
    def double(value: int) -> int:
        return 2 * value

    assert double(2) == 4
    with listening() as marks:
        assert double(3) == 6 and set(marks) == {"double"}
        with listening() as inner:
            double(1)
        first = marks["double"]
    double(5)
    assert marks["double"] == first and inner["double"] > first and first[1] >= first[0]


def test_processor_time_excludes_sleep() -> None:
    try:
        use_clock("cpu")
        begin = now()
        time.sleep(0.2)
        assert now() - begin < 0.1
    finally:
        use_clock("wall")
    begin = now()
    time.sleep(0.02)
    assert now() - begin >= 0.02
