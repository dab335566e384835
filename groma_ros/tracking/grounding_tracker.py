"""Carry answers of the language model from frame to frame along the tracks of their regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.matching import best_pairs
from groma_ros.tracking.executor import Ask
from groma_ros.tracking.motion import Motion
from groma_ros.tracking.questions import (
    Question,
    Reply,
    StandingGoals,
    TrackedAnswer,
    groundings_for,
    stale,
)
from groma_ros.tracking.region_tracker import SECOND, RegionTracker, RegionTrackerConfig, Track, unit
from groma_ros.types import Detection, FloatArray, Grounding, IntArray, Scene

MIN_SAME_IOU = 0.5
"""Minimum IoU at which two regions that a goal's answers name successively are the same object."""
CARRIED_INTERVALS = 2.5
"""Boxes are carried by motion for this many intervals between processed frames, in addition to
`max_coast`."""
MIN_SUCCESSOR_AFFINITY = 0.6
"""Minimum mean of IoU and cosine at which another region takes over an unseen object; stricter than for the
region of the track itself."""


@dataclass(frozen=True)
class TrackingConfig:
    """When the language model is asked again, and how long a frame waits for it."""

    answer_period: float = 0.0
    """Maximum image time between questions, seconds; 0: ask whenever it is idle. The other reasons to ask
    matter only for a higher value."""
    answer_wait: float = 0.2
    """Maximum wait for an answer about the frame itself, seconds; none once an answer took longer."""
    min_similarity: float = 0.6
    """A track whose token has a lower cosine similarity with its previous ones triggers a question."""
    scene_change: float = 0.15
    """Share of regions that are new since the question at which the scene has changed."""
    max_coast: float = 0.5
    """Seconds an unseen box is carried by motion alone."""
    max_answer_age: float = 60.0
    """Seconds beyond `answer_period` after which an answer is stale; 0: never."""
    tracks: RegionTrackerConfig = field(default_factory=RegionTrackerConfig)

    @property
    def max_age(self) -> float:
        """Age of an answer in seconds beyond which it is stale; infinity: never."""
        return self.answer_period + self.max_answer_age if self.max_answer_age else math.inf


@dataclass(frozen=True, eq=False)
class AnswerState:
    """The newest answer of the language model and the tracks of its boxes; one row a goal."""

    reply: Reply
    numbers: tuple[tuple[int, ...], ...]
    """Track of each detection, 0 for none."""
    ids: tuple[tuple[int, ...], ...]
    """Id of each detection. It belongs to the object, even if the model now names another region of it."""
    former: tuple[tuple[tuple[int, int], ...], ...]
    """Tracks that earlier answers named and this one does not, with their ids, so that an object left out of
    one answer gets its id back."""
    others: tuple[tuple[int, ...], ...]
    """Track of each alternative, 0 for none."""


class GroundingTracker:
    """Carries the answers of one camera from frame to frame and asks again when necessary. For one thread at
    a time.

    It never waits for the language model longer than `answer_wait`. regions, answer: the complete state while
    no question is open (saved by `tracker_state.py`); motion: answers and velocities of the newest frame, for
    frames that will not be processed; readable from any thread.
    """

    def __init__(self, ask: Ask, config: TrackingConfig | None = None) -> None:
        self.config = config or TrackingConfig()
        self._ask = ask
        self.regions = RegionTracker(self.config.tracks)
        self.answer: AnswerState | None = None
        self.motion: Motion | None = None
        self._open: tuple[Question, Future[Reply]] | None = None
        self._failure: BaseException | None = None
        self._successors: dict[int, int] = {}
        self._answer_seconds = 0.0

    def set_config(self, config: TrackingConfig) -> None:
        """Apply a new config from the next frame."""
        self.config, self.regions.config = config, config.tracks

    def step(self, scene: Scene, standing: StandingGoals, stream: int | None = None) -> TrackedAnswer:
        """Track the next scene, ask if necessary, and return the answers for it. stream: see
        `RegionTracker.update`."""
        tracked = self._step(scene, standing, stream)
        before = self.motion
        # Until the next frame has been perceived, about two intervals pass; images are carried at least that
        # long.
        interval = scene.stamp - before.stamp if before and before.stream == self.regions.stream else 0
        self.motion = Motion(
            tracked,
            scene.stamp,
            (scene.width, scene.height),
            self._velocities_by_id(),
            self.config.max_coast + CARRIED_INTERVALS * max(0, interval) / SECOND,
            self.regions.stream,
            self.config.max_age,
        )
        return tracked

    def _velocities_by_id(self) -> dict[str, FloatArray]:
        """Velocity of the object of each id, pixels/s."""
        rows = zip(self.answer.numbers, self.answer.ids, strict=True) if self.answer is not None else ()
        pairs = [pair for row in rows for pair in zip(*row, strict=True)]
        return {
            str(object_id): self.regions.tracks[number].velocity
            for number, object_id in pairs
            if number in self.regions.tracks
        }

    def _step(self, scene: Scene, standing: StandingGoals, stream: int | None) -> TrackedAnswer:
        self._collect(0.0)
        numbers = self.regions.update(scene, stream)
        self._reassign_unseen(scene, numbers)
        self._note_successors(scene, numbers)
        if not standing.goals:
            self.answer = None
            return TrackedAnswer((), standing.version, None, 0.0, failure=self._reported())
        if self._open is not None and self._open[0].epoch != self.regions.epoch:
            # Its answer would be about objects that are gone; if it is still queued, it is cancelled. No
            # frame waits until it is known how long an answer takes, which that one still tells.
            self._answer_seconds = math.inf
            self._open[1].cancel()
            self._open[1].add_done_callback(self._note_seconds)
            self._open = None
        why = self._reason(scene, standing, numbers)
        if why:
            question = Question(scene, standing, numbers, self.regions.epoch)
            # takeovers after the question matter to its answer; earlier ones are in its numbers
            self._successors = {}
            self._open = question, self._ask(question)
            self._collect(self.config.answer_wait if self._answer_seconds <= self.config.answer_wait else 0.0)
        return self._current_answer(scene, standing, numbers, why)

    def _note_seconds(self, future: Future[Reply]) -> None:
        """Note how long an answer took that is of no use any more; called in the language model's thread."""
        if not future.cancelled() and future.exception() is None:
            self._answer_seconds = future.result().seconds

    def _reported(self) -> BaseException | None:
        failure, self._failure = self._failure, None
        return failure

    def _collect(self, timeout: float) -> None:
        """Take the answer to the open question if it comes within `timeout` seconds."""
        if self._open is None:
            return
        future = self._open[1]
        if timeout > 0:
            wait([future], timeout)
        if not future.done():
            return
        self._open = None
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._failure = error  # reported with this frame; the next frame asks again
            self._answer_seconds = math.inf  # unknown, so no frame waits until an answer has come
            return
        reply = future.result()
        self._answer_seconds = reply.seconds
        if reply.question.epoch == self.regions.epoch:
            asked = (_tracks_of(item.detections, reply.question) for item in reply.groundings)
            numbers = tuple(tuple(self._successors.get(number, number) for number in row) for row in asked)
            self.answer = self._with_lasting_ids(reply, numbers)

    def _with_lasting_ids(self, reply: Reply, numbers: tuple[tuple[int, ...], ...]) -> AnswerState:
        """Return a new answer with the ids that its objects had in previous answers."""
        known: dict[tuple[str, str], dict[int, int]] = {}
        if self.answer is not None and not self._nothing_to_carry():
            rows = zip(
                self.answer.reply.groundings,
                self.answer.former,
                self.answer.numbers,
                self.answer.ids,
                strict=True,
            )
            for item, former, row, ids in rows:
                known[item.goal.text, item.goal.kind] = {**dict(former), **dict(zip(row, ids, strict=True))}
        all_ids, all_former = [], []
        for item, row in zip(reply.groundings, numbers, strict=True):
            before = known.get((item.goal.text, item.goal.kind), {})
            ids = self._row_ids(row, before)
            left = {
                number: object_id
                for number, object_id in before.items()
                if number in self.regions.tracks and object_id not in ids
            }
            all_ids.append(ids)
            all_former.append(tuple(left.items()))
        others = tuple(_tracks_of(item.alternatives, reply.question) for item in reply.groundings)
        return AnswerState(reply, numbers, tuple(all_ids), tuple(all_former), others)

    def _row_ids(self, row: Sequence[int], known: Mapping[int, int]) -> tuple[int, ...]:
        """Return the ids of a goal's detections. known: id of each track in previous answers of the goal. An
        object may have two regions, and the model may name either."""
        tracks, time = self.regions.tracks, self.regions.time or 0
        ids = {number: known[number] for number in row if number in known}
        left = [number for number in known if number and number not in ids and number in tracks]
        new = [number for number in dict.fromkeys(row) if number and number not in ids and number in tracks]
        if left and new:
            before, now = (np.stack([tracks[number].at(time) for number in group]) for group in (left, new))
            ids |= {
                new[there]: known[left[here]]
                for here, there in best_pairs(box_iou(before, now), MIN_SAME_IOU)
            }
        for number in dict.fromkeys(row):
            if number not in ids:
                ids[number] = number if number not in ids.values() else self.regions.fresh()
        return tuple(ids[number] for number in row)

    def _reassign_unseen(self, scene: Scene, numbers: IntArray) -> None:
        """Let another region take over an object that is not seen: the proposer may find an object twice in
        one frame and once in the next.

        The region must be at the expected place, be similar, and belong to nothing else in the same answer.
        """
        if (
            self.answer is None
            or self._nothing_to_carry()
            or scene.stamp != self.regions.time
            or not len(scene.boxes)
        ):
            return
        rows = [list(row) for row in self.answer.numbers]
        known = (self.regions.tracks.get(number) for row in rows for number in row)
        if all(track is None or track.region >= 0 for track in known):
            return
        tokens = unit(scene.region_tokens)
        for row in rows:
            for place, number in enumerate(row):
                track = self.regions.tracks.get(number)
                if track is None or track.region >= 0:
                    continue
                if successor := _successor(track, scene, tokens, numbers, row):
                    row[place] = successor
                    self._successors = {
                        **{old: successor if new == number else new for old, new in self._successors.items()},
                        number: successor,
                    }
        self.answer = replace(self.answer, numbers=tuple(map(tuple, rows)))

    def _note_successors(self, scene: Scene, numbers: IntArray) -> None:
        """Note the regions that take over objects of the open question, whose answer may name them. Another
        object of the question is none."""
        if self._open is None or scene.stamp != self.regions.time or not len(scene.boxes):
            return
        asked = [int(number) for number in self._open[0].numbers if number]
        current = {number: self._successors.get(number, number) for number in asked}
        tracks = {number: self.regions.tracks.get(now) for number, now in current.items()}
        unseen = {number: track for number, track in tracks.items() if track is not None and track.region < 0}
        if not unseen:
            return
        tokens = unit(scene.region_tokens)
        for number, track in unseen.items():
            if successor := _successor(track, scene, tokens, numbers, [*asked, *current.values()]):
                self._successors = {**self._successors, number: successor}
                current[number] = successor

    def _nothing_to_carry(self) -> bool:
        return self.answer is None or self.answer.reply.question.epoch != self.regions.epoch

    def _reason(self, scene: Scene, standing: StandingGoals, numbers: IntArray) -> str:
        """Reason for asking the language model about this scene; "" for none, or while a question is open."""
        if self._open is not None:
            return ""
        if self.answer is None or self._nothing_to_carry():
            return "first answer"
        question = self.answer.reply.question
        if question.standing.key != standing.key:
            return "new goals"
        if abs(scene.stamp - question.scene.stamp) >= self.config.answer_period * SECOND:
            return "period"
        wanted = {number for row in self.answer.numbers for number in row}
        tracks = [self.regions.tracks.get(number) for number in wanted]
        if any(track is None or self._coasted(track, scene) for track in tracks):
            return "lost track"
        if any(
            track is not None and track.region >= 0 and track.likeness < self.config.min_similarity
            for track in tracks
        ):
            return "doubtful track"
        lasting = [number for number in numbers if number and self.regions.tracks[int(number)].sightings > 1]
        new = len(set(lasting) - set(question.numbers.tolist()))
        return "changed scene" if new and new >= self.config.scene_change * len(numbers) else ""

    def _coasted(self, track: Track, scene: Scene) -> bool:
        return track.region < 0 and scene.stamp - track.time > self.config.max_coast * SECOND

    def _current_answer(
        self, scene: Scene, standing: StandingGoals, numbers: IntArray, why: str
    ) -> TrackedAnswer:
        failure = self._reported()
        if self.answer is None or self._nothing_to_carry():
            return TrackedAnswer(standing.pending, standing.version, None, 0.0, why, failure)
        reply, answer = self.answer.reply, self.answer
        asked = reply.question.scene
        if asked is scene:
            groundings = tuple(
                _with_ids(item, row) for item, row in zip(reply.groundings, answer.ids, strict=True)
            )
        else:
            rows = zip(reply.groundings, answer.numbers, answer.ids, answer.others, strict=True)
            groundings = tuple(self._carried(*row, scene, numbers) for row in rows)
        age = max(0, scene.stamp - asked.stamp) / SECOND
        if age > self.config.max_age:
            groundings = tuple(map(stale, groundings))
        if reply.question.standing.key != standing.key:
            groundings = groundings_for(standing, groundings)
        return TrackedAnswer(groundings, standing.version, asked.stamp, age, why, failure)

    def _carried(
        self,
        grounding: Grounding,
        row: Sequence[int],
        ids: Sequence[int],
        others: Sequence[int],
        scene: Scene,
        numbers: IntArray,
    ) -> Grounding:
        """Move every box of a grounding to its track in this scene. Boxes with a lost track are removed;
        without any left the grounding is stale."""
        places = {int(number): region for region, number in enumerate(numbers) if number}
        placed = (
            self._placed(detection, number, str(object_id), scene, places)
            for detection, number, object_id in zip(grounding.detections, row, ids, strict=True)
        )
        detections = tuple(item for item in placed if item is not None)
        if grounding.detections and not detections:
            return stale(grounding)
        runners_up = (
            self._placed(detection, number, str(number), scene, places)
            for detection, number in zip(grounding.alternatives, others, strict=True)
        )
        alternatives = tuple(item for item in runners_up if item is not None)
        return replace(grounding, detections=detections, alternatives=alternatives)

    def _placed(
        self, detection: Detection, number: int, track_id: str, scene: Scene, places: Mapping[int, int]
    ) -> Detection | None:
        """A detection where its track is in this scene; None where that is lost."""
        track = self.regions.tracks.get(number)
        if number in places:
            box, region = scene.boxes[places[number]], places[number]
        elif track is not None and not self._coasted(track, scene):
            box, region = _within(track.at(scene.stamp), scene), -1
        else:
            return None
        x1, y1, x2, y2 = (float(value) for value in box)
        return Detection((x1, y1, x2, y2), detection.score, region, track_id) if x2 > x1 and y2 > y1 else None


def _successor(
    track: Track, scene: Scene, tokens: FloatArray, numbers: IntArray, taken: Sequence[int]
) -> int:
    """Number of the region at the expected or last place of an unseen track that is most like it, 0 for none.
    taken: numbers that it must not have.

    A region that shrank to a part of its object before it was lost left a velocity that leads away from it.
    """
    overlap = box_iou(np.stack([track.at(scene.stamp), track.box]), scene.boxes).max(0)
    likeness = tokens @ track.token
    fit = np.where((overlap > 0) & ~np.isin(numbers, [0, *taken]), (overlap + likeness) / 2, 0)
    return int(numbers[fit.argmax()]) if fit.max() >= MIN_SUCCESSOR_AFFINITY else 0


def _within(box: NDArray[Any], scene: Scene) -> NDArray[Any]:
    limit = np.array([scene.width, scene.height, scene.width, scene.height], np.float32)
    return np.clip(box, 0, limit)


def _tracks_of(detections: Sequence[Detection], question: Question) -> tuple[int, ...]:
    """Return the track of each detection. They are matched by box, not by index: a goal with user regions was
    answered on a separate scene."""
    if not detections:
        return ()
    overlap = box_iou(np.array([item.box for item in detections], np.float32), question.scene.boxes)
    best = overlap.argmax(1)
    return tuple(
        int(question.numbers[region]) if overlap[row, region] >= MIN_SAME_IOU else 0
        for row, region in enumerate(best)
    )


def _with_ids(grounding: Grounding, row: Sequence[int]) -> Grounding:
    pairs = zip(grounding.detections, row, strict=True)
    return replace(
        grounding,
        detections=tuple(replace(item, track_id=str(number) if number else "") for item, number in pairs),
    )
