"""Compute records from the messages of a bag with the node's pipeline, including the tracker, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from groma_ros.geometry3d.box3d import DepthError, place_all
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.bags import RecordedImage
from groma_ros.io.images import ImageError
from groma_ros.replay.depth import DepthReader
from groma_ros.replay.records import FrameRecord, GoalRecord, goal_record
from groma_ros.tracking.executor import InlineExecutor, asking
from groma_ros.tracking.frame_processor import FrameProcessor
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Frame, Grounding

STAGES = ("decode", "perceive", "answer", "track", "place", "total")
"""Timed stages of a frame: reading and decoding the image, proposals, language model, tracking, 3D boxes,
sum."""

Times = dict[str, float]
"""Milliseconds by stage."""


@dataclass(frozen=True, eq=False)
class Done:
    """A processed frame."""

    record: FrameRecord
    times: Times


class ReplayPipeline:
    """Process one camera's frames in sequence. `tracker`: its state persists between frames and is saved in
    the journal."""

    def __init__(
        self,
        grounder: Grounder,
        standing: StandingGoals,
        config: TrackingConfig,
        depth: DepthReader | None = None,
    ) -> None:
        self._depth = depth
        self._processor = FrameProcessor(grounder, asking(InlineExecutor(), self._answer), config)
        self.tracker = self._processor.tracker
        self._grounder = grounder
        self._standing = standing
        self._answered = 0.0

    def run(self, images: Iterator[RecordedImage]) -> Iterator[Done]:
        """Yield the record of every image. An error of the model about one image marks that image as
        refused."""
        while True:
            start = perf_counter()
            image = next(images, None)
            if image is None:
                return
            yield self._step(image, 1000 * (perf_counter() - start))

    def _step(self, image: RecordedImage, decode: float) -> Done:
        if image.frame is None:
            return self._refused(image, image.cause, decode)
        self._answered = 0.0
        try:
            result = self._processor.process(image.frame, self._standing)
            tracked = result.answer
            if tracked.failure is not None:
                raise tracked.failure
        except ValueError:
            return self._refused(image, "content", decode)
        end = perf_counter()
        goals, depth = self._placed(image.frame, image.time, tracked.groundings)
        perceive, answer = 1000 * result.perceive_seconds, 1000 * self._answered
        times = {
            "decode": decode,
            "perceive": perceive,
            "answer": answer,
            "track": 1000 * result.track_seconds - answer,
        }
        if self._depth is not None:
            times["place"] = 1000 * (perf_counter() - end)
        times = {stage: round(value, 3) for stage, value in (times | {"total": sum(times.values())}).items()}
        record = replace(
            blank_record(image),
            asked=bool(tracked.asked),
            answered=tracked.answered,
            goals=goals,
            depth=depth,
        )
        return Done(record, times)

    def _placed(
        self, frame: Frame, time: int, groundings: Sequence[Grounding]
    ) -> tuple[tuple[GoalRecord, ...], str]:
        """Convert answers to records with 3D boxes, and count by cause the boxes without one."""
        if self._depth is None:
            return tuple(goal_record(item) for item in groundings), ""
        causes: Counter[str] = Counter()
        try:
            frame = self._depth.complete(frame, time)
        except ImageError as error:
            return tuple(goal_record(item) for item in groundings), error.cause

        def refused(error: DepthError) -> None:
            causes[error.cause] += 1

        places = {item.detection.box: item.placement.box for item in place_all(frame, groundings, refused)}
        goals = tuple(goal_record(item, lambda detection: places.get(detection.box)) for item in groundings)
        return goals, ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))

    def _answer(self, question: Question) -> list[Grounding]:
        start = perf_counter()
        found = self._grounder.ground(question.scene, question.standing.goals)
        self._answered += perf_counter() - start
        return found

    def _refused(self, image: RecordedImage, cause: str, decode: float) -> Done:
        return Done(replace(blank_record(image), refused=cause), {"decode": round(decode, 3)})


def blank_record(image: RecordedImage) -> FrameRecord:
    """Record of an image without answers."""
    frame = image.frame or Frame(np.zeros((0, 0, 3), np.uint8))
    height, width = frame.rgb.shape[:2]
    return FrameRecord(
        image.number, image.time, frame.stamp, frame.frame_id, width, height, False, None, image.cause, ()
    )
