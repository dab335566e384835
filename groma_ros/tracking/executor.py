"""Where questions to the language model go: answered at once, or by a thread of its own while frames go
on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np

from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Goal, Grounding, IntArray, Scene


@dataclass(frozen=True, eq=False)
class StandingGoals:
    """The goals that stand. version: of the set; min_presence: a goal less likely than this is absent."""

    goals: tuple[Goal, ...] = ()
    version: int = 0
    min_presence: float = 0.5

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two sets that must get the same answers."""
        said = [
            (g.text, g.kind, g.min_score, None if g.regions is None else g.regions.tobytes())
            for g in self.goals
        ]
        return (self.version, self.min_presence, *said)


@dataclass(frozen=True, eq=False)
class Question:
    """One scene and what to find in it. numbers: int64 N, the track of each region, empty where nothing is
    tracked; epoch: of the tracker when it was asked."""

    scene: Scene
    standing: StandingGoals
    numbers: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    epoch: int = 0

    def answer(self, grounder: Grounder) -> list[Grounding]:
        """Have it answered, in the thread that may ask the grounder."""
        grounder.min_presence = self.standing.min_presence
        return grounder.ground(self.scene, self.standing.goals)


@dataclass(frozen=True, eq=False)
class Reply:
    """A question's answers, one a goal, and the seconds they took."""

    question: Question
    groundings: tuple[Grounding, ...]
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class TrackedAnswer:
    """What is known of the newest frame. groundings: one a goal of the set `version`, empty before the first
    answer.

    answered: stamp in ns of the frame the language model answered on, None before it did; age: seconds from
    it to this frame. Detections have the boxes of this frame and their track ids; a region of -1 was not seen
    in it and is carried by its motion. asked: why this frame was handed to the language model, "" where it
    was not.
    """

    groundings: tuple[Grounding, ...]
    version: int
    answered: int | None
    age: float
    asked: str = ""


Answer = Callable[[Question], list[Grounding]]


class Line(Protocol):
    """One stream's way to the language model; it holds one question at a time."""

    def ask(self, question: Question) -> None:
        """Hand a question in."""
        ...

    def collect(self, timeout: float | None) -> Reply | None:
        """The reply, waited for at most `timeout` seconds (None: until it comes); None without one. Raises
        what the model raised."""
        ...


class InlineExecutor:
    """Answers in the caller's thread, at once: what a replay uses."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._result: Reply | Exception | None = None

    def ask(self, question: Question) -> None:
        """Answer it."""
        try:
            self._result = Reply(question, tuple(self._answer(question)))
        except Exception as error:  # raised where the reply is collected, as by any other line
            self._result = error

    def collect(self, timeout: float | None) -> Reply | None:
        """The reply to the last question, once."""
        result, self._result = self._result, None
        if isinstance(result, Exception):
            raise result
        return result


class AnswerExecutor:
    """A thread that answers questions of any number of streams, in the order in which they came, one a stream
    at a time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._condition = threading.Condition()
        self._waiting: deque[tuple[ExecutorQueue, Question]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="groma_asker", daemon=True)
        self._thread.start()

    def line(self, notify: Callable[[], None] | None = None) -> ExecutorQueue:
        """A new stream's way to the thread. notify: called by the thread when a result is there to be
        collected."""
        return ExecutorQueue(self._condition, self._waiting, lambda: self._closed, notify)

    def close(self) -> None:
        """Wake whoever waits, for good; the question in hand is finished, those that wait are dropped."""
        with self._condition:
            self._closed = True
            self._waiting.clear()
            self._condition.notify_all()

    def stop(self, timeout: float) -> bool:
        """Close and end the thread; False if it still runs after `timeout` seconds."""
        self.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                line, question = self._waiting.popleft()
            start = perf_counter()
            result: Reply | Exception
            try:
                groundings = tuple(self._answer(question))
                result = Reply(question, groundings, perf_counter() - start)
            except Exception as error:  # handed to the stream that asked; the thread lives on
                result = error
            with self._condition:
                line.result = result
                self._condition.notify_all()
            if line.notify is not None:
                line.notify()


class ExecutorQueue:
    """A `Line` to an `AnswerExecutor`, and the way back out of its queue."""

    def __init__(
        self,
        condition: threading.Condition,
        waiting: deque[tuple[ExecutorQueue, Question]],
        closed: Callable[[], bool],
        notify: Callable[[], None] | None,
    ) -> None:
        self._condition, self._waiting, self._closed = condition, waiting, closed
        self.notify = notify
        self.result: Reply | Exception | None = None

    def ask(self, question: Question) -> None:
        """Hand a question in; it is dropped if the asker is closed."""
        with self._condition:
            if not self._closed():
                self._waiting.append((self, question))
                self._condition.notify_all()

    def withdraw(self) -> None:
        """Take back a question that still waits; one in hand is finished."""
        with self._condition:
            for entry in [entry for entry in self._waiting if entry[0] is self]:
                self._waiting.remove(entry)

    def collect(self, timeout: float | None) -> Reply | None:
        """See `Line`; None also once the asker is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed() or self.result is not None, timeout)
            result, self.result = self.result, None
        if isinstance(result, Exception):
            raise result
        return result
