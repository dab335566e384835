"""One-off questions: each is asked about one frame, in the language model's thread, while frames go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groma_ros.node.frame_result import FrameResult
from groma_ros.tracking.executor import ExecutorQueue, Question
from groma_ros.types import Grounding, Scene

Stage = Literal["waiting", "looking", "answered"]


class NoAnswer(ValueError):
    """A question that will not be answered, in a sentence."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a question needs. camera: None for any; fresh: of a frame that comes after the question, not of
    the newest one; depth: with its depth; question: makes it of the frame's scene."""

    camera: int | None
    fresh: bool
    depth: bool
    question: Callable[[Scene], Question]


class FrameRequest:
    """A question on its way: it waits for a frame, the language model looks, it is answered or fails. Any
    thread may call it."""

    def __init__(self, wanted: Wanted, line: ExecutorQueue, notify: Callable[[], None]) -> None:
        self.wanted = wanted
        self.view: FrameResult | None = None
        self._line, self._notify = line, notify
        self._lock = threading.Lock()
        self._groundings: tuple[Grounding, ...] | None = None
        self._failure: Exception | None = None

    @property
    def stage(self) -> Stage:
        """How far it is."""
        self._collect()
        if self._groundings is not None or self._failure is not None:
            return "answered"
        return "waiting" if self.view is None else "looking"

    def result(self) -> tuple[FrameResult, tuple[Grounding, ...]]:
        """The frame and its answers, once it is answered. Raises what the question ended with instead."""
        self._collect()
        if self._failure is not None:
            raise self._failure
        assert self.view is not None and self._groundings is not None, "the look is not answered yet"
        return self.view, self._groundings

    def begin(self, view: FrameResult) -> None:
        """Put the question about this frame."""
        with self._lock:
            if self._failure is not None or self.view is not None:
                return
            self.view = view
        assert view.scene is not None
        try:
            self._line.ask(self.wanted.question(view.scene))
        except ValueError as error:
            self.fail(error)
        self._notify()

    def fail(self, error: Exception) -> None:
        """End it without an answer."""
        with self._lock:
            if self._groundings is None and self._failure is None:
                self._failure = error
        self._line.withdraw()
        self._notify()

    def _collect(self) -> None:
        if self._groundings is not None or self._failure is not None:
            return
        try:
            reply = self._line.collect(0.0)
        except Exception as error:
            with self._lock:
                self._failure = self._failure or error
            return
        if reply is not None:
            with self._lock:
                self._groundings = reply.groundings


class RequestQueue:
    """The questions that are open. Any thread may call it."""

    def __init__(
        self, line: Callable[[Callable[[], None]], ExecutorQueue], notify: Callable[[], None]
    ) -> None:
        self._line, self._notify = line, notify
        self._lock = threading.Lock()
        self._open: list[FrameRequest] = []
        self._closed = ""

    def __len__(self) -> int:
        """Questions that wait for a frame or for the language model."""
        with self._lock:
            return len(self._open)

    def put(self, wanted: Wanted) -> FrameRequest:
        """A new question; it waits for a frame."""
        look = FrameRequest(wanted, self._line(self._notify), self._notify)
        with self._lock:
            self._open.append(look)
            closed = self._closed
        if closed:
            look.fail(NoAnswer(closed))
        return look

    def drop(self, look: FrameRequest) -> None:
        """Forget a question, answered or not."""
        with self._lock:
            self._open = [other for other in self._open if other is not look]
        look.fail(NoAnswer("The question was withdrawn."))

    def waiting(self, camera: int, fresh: bool) -> list[FrameRequest]:
        """The questions that a frame of this camera serves; fresh: the frame was not handed out before."""
        with self._lock:
            wait = [look for look in self._open if look.view is None and look.wanted.camera in (None, camera)]
        return [look for look in wait if (fresh or not look.wanted.fresh) and look.stage == "waiting"]

    def close(self, sentence: str) -> None:
        """End all of them, and all that come, with a sentence."""
        with self._lock:
            self._closed, left, self._open = sentence, self._open, []
        for look in left:
            look.fail(NoAnswer(sentence))
