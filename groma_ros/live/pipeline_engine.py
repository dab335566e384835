"""Engine with the pipeline in this process: runs frames of a source through the model, without ROS."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, TypeVar

from groma_ros.errors import sentence
from groma_ros.grounding.conversation import Conversation, Sessions
from groma_ros.grounding.goals import check_goal, check_standing
from groma_ros.grounding.grounder import Grounder
from groma_ros.live.engine import EngineState, EngineThreads, Shown, SpokenAnswer
from groma_ros.live.sources import Source, SourceFrame
from groma_ros.tracking.executor import AnswerExecutor, asking
from groma_ros.tracking.frame_processor import FrameProcessor
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import FloatArray, Frame, Goal, Grounding, Scene

Result = TypeVar("Result")
ASK_SECONDS = 300.0
"""Maximum duration of an answer in words; a 7B model on a CPU is slow."""
MAX_DIALOGUES = 8
PROBLEM_SECONDS = 3.0
"""Minimum time for which the page shows the reason of a refusal."""
MAX_LAG = 0.5
"""Maximum delay in seconds behind a recording's rate; beyond it, the lost time is skipped."""


class PipelineEngine(EngineThreads):
    """Reads a source in one thread while a page is open, processes its frames in a second; a third runs the
    language model.

    While frames change, answers are carried by tracks as in the node. A frame that stays on the page (paused,
    the last one, or a picture unrelated to the one before) gets answers of its own.
    """

    def __init__(self, grounder: Grounder, source: Source, name: str = "") -> None:
        """name: display name of the model."""
        super().__init__(self._read, self._work)
        self._grounder, self._source, self._name = grounder, source, name
        self._state = EngineState()
        self._steps = 0
        self._restart = self._busy = False
        self._waiting: SourceFrame | None = None
        self._standing = StandingGoals((), 0, grounder.min_presence, grounder.min_margin)
        self._stale = False
        """Whether the frame on the page must be answered again."""
        self._shown: Shown | None = None
        self._scene: Scene | None = None
        self._frame_count = 0
        self._language_ms = 0.0
        self._last_refusal = 0.0
        """Time of the last refusal, `time.monotonic`."""
        self._language = AnswerExecutor()
        self._processor = self._new_processor()
        self._dialogues: Sessions[Conversation] = Sessions()

    @property
    def source(self) -> str:
        """Display name of the source."""
        return self._source.name

    @property
    def model(self) -> str:
        """Name and backend of the model."""
        return self._name

    @property
    def recorded(self) -> bool:
        """Whether the source has an end."""
        return self._source.recorded

    @property
    def state(self) -> EngineState:
        """Return the current state."""
        return self._state

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return the standing goals."""
        return self._standing.goals

    def can(self, kind: str) -> bool:
        """Whether the model can answer a kind of goal; chat may be grounded or plain."""
        return self._grounder.can(kind) or (kind == "chat" and self._grounder.can("grounded_chat"))

    def set_depth_wanted(self, wanted: bool) -> None:
        """Does nothing: the frames of a source have the depth that it provides."""

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Replace the goals from the next frame, or on the frame that stays. Raises ValueError for a goal
        that the model cannot answer."""
        for goal in goals:
            check_goal(goal)
            check_standing(goal)
            self._grounder.check(goal)
        with self._changed:
            version = self._standing.version + 1
            self._standing = replace(self._standing, goals=tuple(goals), version=version)
            self._stale = self._frame_stays()
            self._changed.notify_all()

    def ask(self, shown: Shown, question: str, regions: FloatArray, dialogue: str) -> SpokenAnswer:
        """Ask about the shown frame, or in a dialogue about the frame it started with. Raises ValueError if
        it is refused."""
        boxes = regions if len(regions) else None
        goal = Goal(question.strip(), "chat" if question.strip() else "describe", regions=boxes)
        self._grounder.check(goal)
        answer = self._language.submit(self._spoken, shown, goal, dialogue)
        return _result(answer)

    def set_paused(self, paused: bool) -> None:
        """Pause, which gives the shown frame answers of its own, or resume."""
        with self._changed:
            self._steps = 0
            self._state = replace(self._state, paused=paused)
            self._stale = self._stale or (paused and self._carried())
            self._changed.notify_all()

    def step(self) -> None:
        """Pause, and show the next frame."""
        with self._changed:
            self._state = replace(self._state, paused=True)
            self._steps += 1
            self._changed.notify_all()

    def set_speed(self, speed: float) -> None:
        """Play a recording at 0.1 to 10 times its rate. Raises ValueError for other values and for
        cameras."""
        if not self._source.recorded:
            raise ValueError("A camera has one speed; only a recording can be played faster or slower.")
        if not 0.1 <= speed <= 10:
            raise ValueError(f"The speed {speed:g} is out of range; it must be between 0.1 and 10.")
        with self._changed:
            self._state = replace(self._state, speed=speed)
            self._changed.notify_all()

    def restart(self) -> None:
        """Play a recording from its start."""
        if not self._source.recorded:
            raise ValueError("A camera has no start to go back to.")
        with self._changed:
            self._restart = True
            self._state = replace(self._state, paused=False, ended=False, problem="")
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads and release the source, without waiting for a language model that is still
        generating."""
        self._end_threads(5.0)
        self._language.stop(1.0)
        self._source.close()

    # Reading

    def _read(self) -> None:
        while True:
            try:
                self._play()
            except Exception as error:  # of any decoder; the page shows it
                self._set_state(ended=True, problem=sentence(error))
            else:
                self._set_state(ended=True)
            with self._changed:
                # The last frame stays, so it gets answers of its own.
                self._stale = self._stale or self._carried()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._restart)
                if self._closed:
                    return
                self._restart, self._waiting = False, None
                self._state = replace(self._state, ended=False, problem="")
                self._processor = self._new_processor()

    def _play(self) -> None:
        due, before = time.monotonic(), 0.0
        for item in self._source.frames():
            due = max(due + (item.seconds - before) / self._state.speed, time.monotonic() - MAX_LAG)
            before = item.seconds
            if not self._wait_turn(due):
                return
            if not self._source.recorded and self._state.paused and not self._steps:
                continue  # a camera continues while its picture is paused
            with self._changed:
                if self._waiting is not None:
                    self._state = replace(self._state, dropped=self._state.dropped + 1)
                self._waiting = item
                stepped = self._steps > 0
                self._steps -= stepped
                self._changed.notify_all()
                if stepped or not self._source.moving:  # every picture is processed
                    self._changed.wait_for(lambda: self._play_ended or self._idle)
                if self._play_ended:
                    return
        with self._changed:
            self._changed.wait_for(lambda: self._play_ended or self._idle)

    @property
    def _idle(self) -> bool:
        return self._waiting is None and not self._busy

    @property
    def _play_ended(self) -> bool:
        return self._closed or self._restart

    def _wait_turn(self, due: float) -> bool:
        """Wait until the next frame is due. Returns False if playback is over. due: `time.monotonic`."""
        with self._changed:
            if not self._source.recorded:
                self._changed.wait_for(lambda: self._play_ended or self._watched)
                return not self._play_ended
            while not self._play_ended:
                if self._watched and self._steps:
                    return True
                if not self._watched or self._state.paused:
                    self._changed.wait()
                    due = time.monotonic()
                elif (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    return True
            return False

    # Processing

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None or self._stale)
                if self._closed:
                    return
                item, standing = self._waiting, self._standing
                self._waiting, self._stale, self._busy = None, False, True
            try:
                if item is not None:
                    self._process(item, standing)
                elif self._shown is not None and self._scene is not None:
                    self._publish(self._answered(self._shown.frame, self._scene, standing, self._shown))
            except Exception as error:  # whatever the model raises on one frame, the next one is processed
                self._refuse(sentence(error))
            with self._changed:
                self._busy = False
                if item is not None and self._frame_stays() and self._carried():
                    self._stale = True
                self._changed.notify_all()

    def _process(self, item: SourceFrame, standing: StandingGoals) -> None:
        if item.frame is None:
            self._refuse(item.refusal)
            return
        start = time.perf_counter()
        if not self._source.moving:
            scene = self._grounder.perceive(item.frame)
            perceived = 1000 * (time.perf_counter() - start)
            shown = Shown(0, item.frame, (), scene.boxes, milliseconds={"perceive": perceived})
            self._scene = scene
            self._publish(self._answered(item.frame, scene, standing, shown))
            return
        result = self._processor.process(item.frame, standing)
        if result.answer.failure is not None:
            raise result.answer.failure
        self._scene = result.scene
        times = {
            "perceive": 1000 * result.perceive_seconds,
            "language": self._language_ms,
            "track and wait": 1000 * result.track_seconds,
        }
        answer = result.answer
        self._publish(Shown(0, item.frame, answer.groundings, result.scene.boxes, answer.answered, times))

    def _answered(self, frame: Frame, scene: Scene, standing: StandingGoals, shown: Shown) -> Shown:
        """The frame with answers to all goals computed on itself."""
        question = Question(scene, standing)
        groundings = tuple(_result(self._language.submit(self._answer, question))) if standing.goals else ()
        times = {"perceive": shown.milliseconds.get("perceive", 0.0), "language": self._language_ms}
        return Shown(0, frame, groundings, scene.boxes, scene.stamp, times)

    def _publish(self, shown: Shown) -> None:
        self._frame_count += 1
        self._shown = replace(shown, number=self._frame_count)
        if not self._state.ended and time.monotonic() - self._last_refusal > PROBLEM_SECONDS:
            self._set_state(problem="")
        self._show(self._shown)

    def _frame_stays(self) -> bool:
        """Whether the frame being processed stays on the page."""
        return self._state.paused or self._state.ended

    def _carried(self) -> bool:
        """Whether the answers on the page were computed on an earlier frame."""
        shown = self._shown
        return shown is not None and bool(self._standing.goals) and shown.answered != shown.frame.stamp

    def _refuse(self, reason: str) -> None:
        self._last_refusal = time.monotonic()
        self._set_state(problem=reason, refused=self._state.refused + 1)

    def _set_state(self, **changes: Any) -> None:
        with self._changed:
            self._state = replace(self._state, **changes)

    # Language model thread

    def _new_processor(self) -> FrameProcessor:
        return FrameProcessor(self._grounder, asking(self._language, self._answer), TrackingConfig())

    def _answer(self, question: Question) -> list[Grounding]:
        start = time.perf_counter()
        found = question.answer(self._grounder)
        self._language_ms = 1000 * (time.perf_counter() - start)
        return found

    def _spoken(self, shown: Shown, goal: Goal, dialogue: str) -> SpokenAnswer:
        """Answer in words; a dialogue continues about the frame it started with."""
        known = self._dialogues.get(dialogue) if dialogue else None
        if goal.kind != "chat":
            scene = self._grounder.perceive(shown.frame)
            return SpokenAnswer(self._grounder.ground(scene, goal)[0], shown.frame.stamp)
        talk = known or Conversation.about(self._grounder.perceive(shown.frame))
        grounding, talk = self._grounder.converse(talk, goal)
        if dialogue:
            self._dialogues.keep(dialogue, talk, MAX_DIALOGUES)
        return SpokenAnswer(grounding, talk.base.stamp)


def _result(future: Future[Result]) -> Result:
    try:
        return future.result(ASK_SECONDS)
    except FutureTimeout:
        raise ValueError(f"The model did not answer within {ASK_SECONDS:.0f} s.") from None
