"""Accuracy of boxes carried between answers, on moving-camera sequences with truth and an artificially
delayed language model. The stamps are the clock, so the speed of the machine does not matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.boxes import box_iou
from groma_ros.grounding.grounder import Grounder
from groma_ros.matching import exact_set, found_for, match_boxes
from groma_ros.tracking.executor import Answer
from groma_ros.tracking.grounding_tracker import GroundingTracker, TrackingConfig
from groma_ros.tracking.questions import Question, Reply, StandingGoals, TrackedAnswer
from groma_ros.tracking.region_tracker import SECOND
from groma_ros.types import FloatArray, Frame, Goal, Grounding, Scene

ORDER = (
    "inputs",
    "boxed",
    "iou",
    "iou_still",
    "kept",
    "switches_per_minute",
    "age_mean",
    "age_max",
    "questions",
)


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of a sequence with its truth."""

    frame: Frame
    targets: Mapping[str, FloatArray]
    """True boxes of each goal that has any, float32 (T, 4) xyxy pixels, in the same order in every frame."""


ANSWERS = 6
"""A sequence is played back and forth until it is as long as this many answers take."""


@dataclass(frozen=True)
class Mode:
    """How a sequence is tracked."""

    answer_seconds: float
    """Seconds of stamps that an answer takes."""
    proposer_hz: float = 0.0
    """Frames per second that are perceived, the others are tracked by motion only; 0 perceives all."""


class DelayedModel:
    """A language model whose answers arrive `seconds` after the question, by the stamps of the frames."""

    def __init__(self, answer: Answer, seconds: float) -> None:
        self._answer, self._seconds = answer, seconds
        self._open: tuple[Question, Future[Reply]] | None = None
        self.asked = 0

    def ask(self, question: Question) -> Future[Reply]:
        """Submit a question."""
        self._open, self.asked = (question, Future()), self.asked + 1
        future = self._open[1]
        self.advance(question.scene.stamp)
        return future

    def advance(self, now: int) -> None:
        """Deliver the pending answer if it is due at the stamp (ns) of the newest frame."""
        if self._open is None or now - self._open[0].scene.stamp < self._seconds * SECOND:
            return
        (question, future), self._open = self._open, None
        if future.set_running_or_notify_cancel():
            future.set_result(Reply(question, tuple(self._answer(question)), self._seconds))


@dataclass
class TrackingTally:
    """Counts over carried boxes: boxes of right answers, on frames that the language model did not see."""

    inputs: int = 0
    outputs: int = 0
    after: int = 0
    """Outputs from one frame after the first answer on."""
    boxed: int = 0
    """Those of them on which each goal that was found in the last answer has a box."""
    questions: int = 0
    seconds: float = 0.0
    switches: int = 0
    iou: list[float] = field(default_factory=list)
    """IoU of each true box with the box carried for it, 0 if there is none."""
    still: list[float] = field(default_factory=list)
    """IoU of each true box with the box as it was when answered, without tracking."""
    ages: list[float] = field(default_factory=list)
    """Ages of the answers, seconds."""
    names: dict[tuple[int, str, int], str] = field(default_factory=dict)
    """Last id of each true box, by sequence, goal and target."""

    def report(self) -> dict[str, Any]:
        """Compute the metrics. `kept` is the share of true boxes whose carried box has an IoU of at least
        0.5."""
        kept = float(np.mean([value >= 0.5 for value in self.iou])) if self.iou else None
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "boxed": round(self.boxed / self.after, 4) if self.after else None,
            "carried_boxes": len(self.iou),
            "iou": _mean(self.iou),
            "iou_still": _mean(self.still),
            "kept": None if kept is None else round(kept, 4),
            "switches": self.switches,
            "switches_per_minute": round(60 * self.switches / self.seconds, 3) if self.seconds else None,
            "age_mean": _mean(self.ages),
            "age_max": round(max(self.ages), 3) if self.ages else None,
            "questions": self.questions,
        }


def evaluate_tracking(
    grounder: Grounder, sequences: Iterable[Sequence[Moment]], modes: Sequence[Mode], config: TrackingConfig
) -> list[TrackingTally]:
    """Track the sequences in every mode. Every frame is perceived once for all modes."""
    tallies = [TrackingTally() for _ in modes]
    for number, moments in enumerate(sequences):
        scenes = [grounder.perceive(moment.frame) for moment in moments]
        for mode, tally in zip(modes, tallies, strict=True):
            _track(grounder, number, lengthened(moments, scenes, mode.answer_seconds), mode, config, tally)
    return tallies


def lengthened(
    moments: Sequence[Moment], scenes: Sequence[Scene], answer_seconds: float
) -> list[tuple[Moment, Scene]]:
    """A sequence and its scenes, played back and forth with stamps that go on until `ANSWERS` answers fit."""
    stamps = [moment.frame.stamp for moment in moments]
    wanted = round(ANSWERS * answer_seconds * SECOND)
    longer = list(zip(moments, scenes, strict=True))
    if len(set(stamps)) < 2:
        return longer
    place, step, stamp = len(moments) - 1, -1, stamps[-1]
    while stamp - stamps[0] < wanted:
        if not 0 <= place + step < len(moments):
            step = -step
        stamp += abs(stamps[place + step] - stamps[place])
        place += step
        frame, scene = replace(moments[place].frame, stamp=stamp), replace(scenes[place], stamp=stamp)
        longer.append((Moment(frame, moments[place].targets), scene))
    return longer


def _track(
    grounder: Grounder,
    number: int,
    sequence: Sequence[tuple[Moment, Scene]],
    mode: Mode,
    config: TrackingConfig,
    tally: TrackingTally,
) -> None:
    texts = list(dict.fromkeys(text for moment, _ in sequence for text in moment.targets))
    standing, truth = (
        StandingGoals(tuple(map(Goal, texts)), 1, grounder.min_presence, grounder.min_margin),
        {moment.frame.stamp: moment.targets for moment, _ in sequence},
    )
    right: dict[int, dict[str, tuple[Grounding, Mapping[str, FloatArray]]]] = {}
    found: dict[int, set[str]] = {}

    def answer(question: Question) -> list[Grounding]:
        groundings, targets = question.answer(grounder), truth[question.scene.stamp]
        known = [
            item
            for item in groundings
            if exact_set(_boxes(item), targets.get(item.goal.text, np.zeros((0, 4), np.float32)))
        ]
        right[question.scene.stamp] = {item.goal.text: (item, targets) for item in known}
        found[question.scene.stamp] = {item.goal.text for item in groundings if item.detections}
        return groundings

    line = DelayedModel(answer, mode.answer_seconds)
    # Frames are processed as fast as possible and answers are delayed by stamps, so never wait.
    tracker = GroundingTracker(line.ask, replace(config, answer_wait=0.0))
    begin = due = sequence[0][0].frame.stamp
    first: int | None = None
    for moment, scene in sequence:
        stamp = moment.frame.stamp
        line.advance(stamp)
        tracked: TrackedAnswer | None
        if stamp >= due:
            due += round(SECOND / mode.proposer_hz) if mode.proposer_hz else 0
            tracked = tracker.step(scene, standing)
        else:
            tracked = tracker.motion.at(stamp) if tracker.motion is not None else None
        tally.inputs += 1
        if tracked is None:
            continue
        tally.outputs += 1
        if tracked.answered is None:
            continue
        if first is not None:
            boxed = {item.goal.text for item in tracked.groundings if item.detections}
            tally.after += 1
            tally.boxed += found[tracked.answered] <= boxed
        first = stamp if first is None else first
        tally.ages.append(tracked.age)
        _judge(tally, number, moment, tracked, right[tracked.answered])
    tally.questions += line.asked
    tally.seconds += (sequence[-1][0].frame.stamp - begin) / SECOND


def _judge(
    tally: TrackingTally,
    number: int,
    moment: Moment,
    tracked: TrackedAnswer,
    right: Mapping[str, tuple[Grounding, Mapping[str, FloatArray]]],
) -> None:
    for grounding in tracked.groundings:
        text = grounding.goal.text
        targets = moment.targets.get(text)
        if text not in right or targets is None or not len(targets):
            continue
        pairs = found_for(targets, _boxes(grounding))
        for target, (box, value) in enumerate(pairs):
            if value >= 0.5:
                name = grounding.detections[box].track_id
                tally.switches += tally.names.setdefault((number, text, target), name) != name
                tally.names[number, text, target] = name
        if tracked.age > 0:
            tally.iou += [value for _, value in pairs]
            before, then = right[text]
            held = match_boxes(_boxes(before), then[text])
            tally.still += [
                float(value) for value in box_iou(_boxes(before), targets)[np.arange(len(held)), held]
            ]


def _boxes(grounding: Grounding) -> FloatArray:
    return np.array([item.box for item in grounding.detections], np.float32).reshape(-1, 4)


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def rendered(seed: int, count: int, seconds: float) -> Iterator[list[Moment]]:
    """Rendered sequences of a swaying camera, one scene each, with goals whose targets do not change."""
    from groma_ros.simulation.sequence import FRAME_ID, render_sequence, steady_goals
    from groma_ros.simulation.worlds import DEFAULT_WORLD

    for number in range(seed, seed + count):
        frames = render_sequence(number, seconds, DEFAULT_WORLD)
        goals = [goal for goal in steady_goals(frames, number, DEFAULT_WORLD) if goal.targets]
        yield [
            Moment(
                Frame(frame.rgb, frame.stamp, FRAME_ID),
                {
                    goal.text: np.array([frame.objects[index].box for index in goal.targets], np.float32)
                    for goal in goals
                },
            )
            for frame in frames
        ]


def recorded(bag: Path, truth_file: Path | None) -> list[Moment]:
    """Frames of a bag that its truth file contains (default: truth.json beside the bag).

    Raises ValueError if the file contains none of them.
    """
    from groma_ros.io.bag_topics import find_camera
    from groma_ros.io.bags import open_bag, recorded_images
    from groma_ros.replay.truth import read_truth

    with open_bag(bag) as opened:
        truth = read_truth(truth_file or bag.parent / "truth.json")
        images = recorded_images(opened, find_camera(opened))
        frames = [image.frame for image in images if image.frame is not None]
    moments = [Moment(frame, truth.boxes[frame.stamp]) for frame in frames if frame.stamp in truth.boxes]
    if not moments:
        raise ValueError(
            f"The truth file knows none of the frames of {bag}; its stamps are those of another recording."
        )
    return moments


def table(document: Mapping[str, Any]) -> str:
    """Format the report as text."""
    head = f"{document['sequences']} sequences"
    names = [
        f"{row['answer_seconds']:g} s, " + (f"{row['proposer_hz']:g} Hz" if row["proposer_hz"] else "all")
        for row in document["rows"]
    ]
    lines = [head, f"{'answers take, perceived':<26}" + "".join(f"{name:>14}" for name in names)]
    for key in ORDER:
        values = [
            "-" if row[key] is None else f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key])
            for row in document["rows"]
        ]
        lines.append(f"{key:<26}" + "".join(f"{value:>14}" for value in values))
    return "\n".join(lines)
