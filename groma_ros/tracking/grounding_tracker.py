"""Boxes at camera rate from answers at the language model's own pace.

The node and the replay run the same code, one `GroundingTracker` a camera:

    # The node: an `asking.Asker` thread answers while frames go on
    follower = GroundingTracker(asker.line(), rule)
    # A replay: answered at once, the same bytes each time
    follower = GroundingTracker(Inline(answer), rule)
    followed = follower.step(grounder.perceive(frame), StandingGoals(goals, version, min_presence))

`step` runs in the thread of the camera's frames, on every frame; only the line to the language model is
another thread's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from groma_ros.boxes import box_iou
from groma_ros.matching import best_pairs
from groma_ros.tracking.executor import Line, Question, Reply, StandingGoals, TrackedAnswer
from groma_ros.tracking.motion import Motion
from groma_ros.tracking.region_tracker import SECOND, RegionTracker, RegionTrackerConfig, Track, unit
from groma_ros.types import Detection, FloatArray, Grounding, IntArray, Scene

SAME = 0.5
"""IoU from which two regions that one goal names one after the other are one object."""
HEIR = 0.6
"""Mean of IoU and cosine from which a region stands for an object that is not seen; stricter than a track's
own region."""


@dataclass(frozen=True)
class TrackingConfig:
    """When the language model is asked again, and how long a frame waits for it.

    answer_period: seconds of stamps after which it is asked in any case, 0 asks on every frame that finds it
    idle; answer_wait: seconds a frame waits for its own answer, as long as answers take no longer than that;
    doubt: a track whose token suddenly has a lower cosine with its former ones is doubtful; change: share of
    the regions that are new since the question, at and above which the scene is another; coast: seconds a box
    that is not seen is carried by motion alone.
    """

    answer_period: float = 0.0
    answer_wait: float = 0.2
    doubt: float = 0.6
    change: float = 0.15
    coast: float = 0.5
    tracks: RegionTrackerConfig = field(default_factory=RegionTrackerConfig)


@dataclass(frozen=True, eq=False)
class AnswerState:
    """The answer that stands, which the follower remembers. numbers: for each goal, the track of each
    detection, 0 for none; names: likewise its id, which stays that of the object though the model now names
    another region of it; former: for each goal, tracks that earlier answers named and this one does not, each
    with the id it had, so that an object left out for one answer gets it back."""

    reply: Reply
    numbers: tuple[tuple[int, ...], ...]
    names: tuple[tuple[int, ...], ...]
    former: tuple[tuple[tuple[int, int], ...], ...]


class GroundingTracker:
    """Carries the answers about one camera from frame to frame. One thread at a time may call it.

    tracker, held: all that it remembers while no question is open (`memory.py` writes it down); motion: what
    the newest frame says of those that will not be looked at, for any thread.
    """

    def __init__(self, line: Line, rule: TrackingConfig | None = None) -> None:
        self.rule = rule or TrackingConfig()
        self._line = line
        self.tracker = RegionTracker(self.rule.tracks)
        self.held: AnswerState | None = None
        self.motion: Motion | None = None
        self._open: Question | None = None
        self._heirs: dict[int, int] = {}
        self._pace = 0.0

    def set_config(self, rule: TrackingConfig) -> None:
        """Go by another rule from the next frame on."""
        self.rule, self.tracker.rule = rule, rule.tracks

    def step(self, scene: Scene, standing: StandingGoals) -> TrackedAnswer:
        """Track one more scene, ask if there is reason to, and say where everything is now. Raises what the
        language model raised; the next frame asks anew."""
        followed = self._step(scene, standing)
        self.motion = Motion(
            followed, scene.stamp, (scene.width, scene.height), self._pace_of_names(), self.rule.coast
        )
        return followed

    def _pace_of_names(self) -> dict[str, FloatArray]:
        """How fast what each id stands for moves, pixels a second."""
        rows = zip(self.held.numbers, self.held.names, strict=True) if self.held is not None else ()
        pairs = [pair for row in rows for pair in zip(*row, strict=True)]
        return {
            str(name): self.tracker.tracks[number].velocity
            for number, name in pairs
            if number in self.tracker.tracks
        }

    def _step(self, scene: Scene, standing: StandingGoals) -> TrackedAnswer:
        self._take(0.0)
        numbers = self.tracker.update(scene)
        self._take_over(scene, numbers)
        if not standing.goals:
            self.held = None
            return TrackedAnswer((), standing.version, None, 0.0)
        why = self._reason(scene, standing, numbers)
        if why:
            self._ask(scene, standing, numbers)
        if self._nothing_to_carry():
            self._take(None)
            if self._nothing_to_carry() and not why and (why := self._reason(scene, standing, numbers)):
                # The answer that came was about what is no more: this frame asks for itself.
                self._ask(scene, standing, numbers)
                self._take(None)
        elif why and self._pace <= self.rule.answer_wait:
            self._take(self.rule.answer_wait)
        return self._now(scene, standing, numbers, why)

    def _ask(self, scene: Scene, standing: StandingGoals, numbers: IntArray) -> None:
        self._open = Question(scene, standing, numbers, self.tracker.epoch)
        self._heirs = {}  # what took over later matters to the answer, what did before is in its numbers
        self._line.ask(self._open)

    def _take(self, timeout: float | None) -> None:
        if self._open is None:
            return
        try:
            reply = self._line.collect(timeout)
        except Exception:
            self._open = None
            raise
        if reply is None:
            return
        self._open, self._pace = None, reply.seconds
        if reply.question.epoch == self.tracker.epoch:
            asked = (_tracks_of(item, reply.question) for item in reply.groundings)
            numbers = tuple(tuple(self._heirs.get(number, number) for number in row) for row in asked)
            self.held = self._named_answer(reply, numbers)

    def _named_answer(self, reply: Reply, numbers: tuple[tuple[int, ...], ...]) -> AnswerState:
        """A new answer with the ids that the goal's objects had in the answers before."""
        known: dict[tuple[str, str], dict[int, int]] = {}
        if self.held is not None and not self._nothing_to_carry():
            rows = zip(
                self.held.reply.groundings, self.held.former, self.held.numbers, self.held.names, strict=True
            )
            for item, former, row, names in rows:
                known[item.goal.text, item.goal.kind] = {**dict(former), **dict(zip(row, names, strict=True))}
        all_names, all_former = [], []
        for item, row in zip(reply.groundings, numbers, strict=True):
            before = known.get((item.goal.text, item.goal.kind), {})
            names = self._row_names(row, before)
            left = {
                number: name
                for number, name in before.items()
                if number in self.tracker.tracks and name not in names
            }
            all_names.append(names)
            all_former.append(tuple(left.items()))
        return AnswerState(reply, numbers, tuple(all_names), tuple(all_former))

    def _row_names(self, row: Sequence[int], known: Mapping[int, int]) -> tuple[int, ...]:
        """known: the name of each track of the goal's former answers. One object may have two regions, and
        the model name either."""
        tracks, time = self.tracker.tracks, self.tracker.time or 0
        names = {number: known[number] for number in row if number in known}
        left = [number for number in known if number and number not in names and number in tracks]
        new = [number for number in dict.fromkeys(row) if number and number not in names and number in tracks]
        if left and new:
            before, now = (np.stack([tracks[number].at(time) for number in group]) for group in (left, new))
            names |= {new[there]: known[left[here]] for here, there in best_pairs(box_iou(before, now), SAME)}
        for number in dict.fromkeys(row):
            if number not in names:
                names[number] = number if number not in names.values() else self.tracker.fresh()
        return tuple(names[number] for number in row)

    def _take_over(self, scene: Scene, numbers: IntArray) -> None:
        """Let another region stand for an object that is not seen: a proposer may find one object twice, and
        then only once.

        It must lie where the object is expected, look like it, and stand for nothing else in the same answer.
        """
        if (
            self.held is None
            or self._nothing_to_carry()
            or scene.stamp != self.tracker.time
            or not len(scene.boxes)
        ):
            return
        rows, tokens = [list(row) for row in self.held.numbers], unit(scene.region_tokens)
        for row in rows:
            for place, number in enumerate(row):
                track = self.tracker.tracks.get(number)
                if track is None or track.region >= 0:
                    continue
                overlap, likeness = box_iou(track.at(scene.stamp)[None], scene.boxes)[0], tokens @ track.token
                fit = np.where((overlap > 0) & ~np.isin(numbers, [0, *row]), (overlap + likeness) / 2, 0)
                if fit.max() >= HEIR:
                    row[place] = heir = int(numbers[fit.argmax()])
                    self._heirs = {
                        **{old: heir if new == number else new for old, new in self._heirs.items()},
                        number: heir,
                    }
        self.held = replace(self.held, numbers=tuple(map(tuple, rows)))

    def _nothing_to_carry(self) -> bool:
        return self.held is None or self.held.reply.question.epoch != self.tracker.epoch

    def _reason(self, scene: Scene, standing: StandingGoals, numbers: IntArray) -> str:
        """Why the language model should look at this scene; "" for no reason, or while it still looks at
        another."""
        if self._open is not None:
            return ""
        if self.held is None or self._nothing_to_carry():
            return "first answer"
        question = self.held.reply.question
        if question.standing.key != standing.key:
            return "new goals"
        if abs(scene.stamp - question.scene.stamp) >= self.rule.answer_period * SECOND:
            return "period"
        wanted = {number for row in self.held.numbers for number in row}
        tracks = [self.tracker.tracks.get(number) for number in wanted]
        if any(track is None or self._coasted(track, scene) for track in tracks):
            return "lost track"
        if any(
            track is not None and track.region >= 0 and track.likeness < self.rule.doubt for track in tracks
        ):
            return "doubtful track"
        lasting = [number for number in numbers if number and self.tracker.tracks[int(number)].sightings > 1]
        new = len(set(lasting) - set(question.numbers.tolist()))
        return "changed scene" if new and new >= self.rule.change * len(numbers) else ""

    def _coasted(self, track: Track, scene: Scene) -> bool:
        return track.region < 0 and scene.stamp - track.time > self.rule.coast * SECOND

    def _now(self, scene: Scene, standing: StandingGoals, numbers: IntArray, why: str) -> TrackedAnswer:
        if self.held is None or self._nothing_to_carry():
            return TrackedAnswer((), standing.version, None, 0.0, why)
        reply = self.held.reply
        asked = reply.question.scene
        if asked is scene:
            groundings = tuple(
                _named(item, row) for item, row in zip(reply.groundings, self.held.names, strict=True)
            )
        else:
            rows = zip(reply.groundings, self.held.numbers, self.held.names, strict=True)
            groundings = tuple(self._carried(*row, scene, numbers) for row in rows)
        age = max(0, scene.stamp - asked.stamp) / SECOND
        return TrackedAnswer(groundings, reply.question.standing.version, asked.stamp, age, why)

    def _carried(
        self, grounding: Grounding, row: Sequence[int], names: Sequence[int], scene: Scene, numbers: IntArray
    ) -> Grounding:
        """The grounding with every box where its track is in this scene; boxes whose track is lost are
        gone."""
        places = {int(number): region for region, number in enumerate(numbers) if number}
        detections = []
        for detection, number, name in zip(grounding.detections, row, names, strict=True):
            track = self.tracker.tracks.get(number)
            if number in places:
                box, region = scene.boxes[places[number]], places[number]
            elif track is not None and not self._coasted(track, scene):
                box, region = _within(track.at(scene.stamp), scene), -1
            else:
                continue
            x1, y1, x2, y2 = (float(value) for value in box)
            if x2 > x1 and y2 > y1:
                detections.append(Detection((x1, y1, x2, y2), detection.score, region, str(name)))
        return replace(grounding, detections=tuple(detections))


def _within(box: np.ndarray, scene: Scene) -> np.ndarray:
    limit = np.array([scene.width, scene.height, scene.width, scene.height], np.float32)
    return np.clip(box, 0, limit)


def _tracks_of(grounding: Grounding, question: Question) -> tuple[int, ...]:
    """The track of each detection. By box and not by index: a goal with regions of its own was answered on a
    scene of its own."""
    if not grounding.detections:
        return ()
    overlap = box_iou(np.array([item.box for item in grounding.detections], np.float32), question.scene.boxes)
    best = overlap.argmax(1)
    return tuple(
        int(question.numbers[region]) if overlap[row, region] >= 0.5 else 0 for row, region in enumerate(best)
    )


def _named(grounding: Grounding, row: Sequence[int]) -> Grounding:
    pairs = zip(grounding.detections, row, strict=True)
    return replace(
        grounding,
        detections=tuple(replace(item, track_id=str(number) if number else "") for item, number in pairs),
    )
