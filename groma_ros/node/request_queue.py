"""One-off questions, each answered about one image in the language model's thread while images continue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Literal

from groma_ros.node.frame_result import ImageResult
from groma_ros.tracking.questions import Question
from groma_ros.types import Grounding, Scene

Stage = Literal["waiting", "looking", "answered"]
Answer = Callable[[Question], "list[Grounding]"]
Finish = Callable[[ImageResult, "list[Grounding]"], Any]


class NoAnswer(ValueError):
    """A question will not be answered; the message says why."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """A question, and the image it needs."""

    camera: int | None
    """None for any."""
    fresh: bool
    """Needs an image that arrives after the question; else the newest one serves."""
    depth: bool
    """Needs the depth of the image."""
    question: Callable[[Scene], Question]
    """Makes the question from the image's scene."""
    finish: Finish | None = None
    """Work on the answer that may take time or wait for transforms; its result is that of the request. Called
    in the language model's thread."""


@dataclass(frozen=True, eq=False)
class Answered:
    """The image that was asked about, its answers, and what `Wanted.finish` made of them."""

    view: ImageResult
    groundings: list[Grounding]
    finished: Any = None


class FrameRequest:
    """An open question: it waits for an image, then for the language model, and is answered or fails. Any
    thread may call it."""

    def __init__(
        self, wanted: Wanted, executor: Executor, answer: Answer, notify: Callable[[], None]
    ) -> None:
        self.wanted = wanted
        self.view: ImageResult | None = None
        self.future: Future[Answered] = Future()
        self._executor, self._answer, self._notify = executor, answer, notify
        self._lock = threading.Lock()
        self._call: Future[None] | None = None

    @property
    def stage(self) -> Stage:
        """Stage of the request."""
        if self.future.done():
            return "answered"
        return "waiting" if self.view is None else "looking"

    def result(self) -> Answered:
        """The answer, once there is one. Raises the error of a question that failed."""
        return self.future.result(0)

    def begin(self, view: ImageResult) -> None:
        """Submit the question about this image."""
        assert view.scene is not None
        with self._lock:
            if self.future.done() or self.view is not None:
                return
            self.view = view
        try:
            question = self.wanted.question(view.scene)
        except ValueError as error:
            self.fail(error)
            return
        call = self._executor.submit(self._run, view, question)
        with self._lock:
            self._call = call
        if call.cancelled():
            self.fail(NoAnswer("The node is not active."))
        self._notify()

    def fail(self, error: Exception) -> None:
        """End it without an answer; a call that still waits for the language model is cancelled."""
        with self._lock:
            call = self._call
            if not self.future.done():
                self.future.set_exception(error)
        if call is not None:
            call.cancel()
        self._notify()

    def _run(self, view: ImageResult, question: Question) -> None:
        if self.future.done():
            return
        result: Answered | None = None
        try:
            groundings = self._answer(question)
            finish = self.wanted.finish
            result = Answered(view, groundings, finish(view, groundings) if finish is not None else None)
        except Exception as error:  # raised again in `result`
            self.fail(error)
            return
        with self._lock:
            if not self.future.done():
                self.future.set_result(result)
        self._notify()


class RequestQueue:
    """The questions that are open. Any thread may call it."""

    def __init__(self, executor: Executor, answer: Answer, notify: Callable[[], None]) -> None:
        self._executor, self._answer, self._notify = executor, answer, notify
        self._lock = threading.Lock()
        self._open: list[FrameRequest] = []
        self._closed = ""

    def __len__(self) -> int:
        """Questions that wait for an image or for the language model."""
        with self._lock:
            return len(self._open)

    def put(self, wanted: Wanted) -> FrameRequest:
        """A new question; it waits for an image."""
        request = FrameRequest(wanted, self._executor, self._answer, self._notify)
        with self._lock:
            closed = self._closed
            if not closed:
                self._open.append(request)
        if closed:
            request.fail(NoAnswer(closed))
        return request

    def drop(self, request: FrameRequest) -> None:
        """Forget a question, answered or not."""
        with self._lock:
            self._open = [other for other in self._open if other is not request]
        request.fail(NoAnswer("The question was withdrawn."))

    def waiting(self, camera: int, fresh: bool) -> list[FrameRequest]:
        """The questions that an image of this camera serves; fresh: the image was not handed out before."""
        with self._lock:
            return [
                request
                for request in self._open
                if request.wanted.camera in (None, camera)
                and (fresh or not request.wanted.fresh)
                and request.stage == "waiting"
            ]

    def close(self, sentence: str) -> None:
        """End all open questions and all later ones with a sentence."""
        with self._lock:
            self._closed, left, self._open = sentence, self._open, []
        for request in left:
            request.fail(NoAnswer(sentence))
