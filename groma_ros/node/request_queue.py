"""One-off questions. Each is answered on one image in the language model's thread while other images are
processed."""

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
    """A question and the image it requires."""

    camera: int | None
    """None: any camera."""
    fresh: bool
    """True: needs an image that arrives after the question; False: the newest image will do."""
    depth: bool
    """True: needs the depth of the image."""
    question: Callable[[Scene], Question]
    """Creates the question from the image's scene."""
    finish: Finish | None = None
    """Postprocesses the answer; may be slow or wait for transforms. Called in the language model's thread."""


@dataclass(frozen=True, eq=False)
class Answered:
    """The image that was asked about, the answers, and the result of `Wanted.finish`."""

    view: ImageResult
    groundings: list[Grounding]
    finished: Any = None


class FrameRequest:
    """An open question: waits for an image, then for the language model, until it is answered or fails.
    Thread-safe."""

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
        """Return the answer of a completed question. Raises its error if it failed."""
        return self.future.result(0)

    def begin(self, view: ImageResult) -> None:
        """Submit the question on this image."""
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
        """Fail the question; a call that is still queued for the language model is cancelled."""
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
        except Exception as error:  # re-raised by `result`
            self.fail(error)
            return
        with self._lock:
            if not self.future.done():
                self.future.set_result(result)
        self._notify()


class RequestQueue:
    """The open questions. Thread-safe."""

    def __init__(self, executor: Executor, answer: Answer, notify: Callable[[], None]) -> None:
        self._executor, self._answer, self._notify = executor, answer, notify
        self._lock = threading.Lock()
        self._open: list[FrameRequest] = []
        self._closed = ""

    def __len__(self) -> int:
        """Number of questions that wait for an image or for the language model."""
        with self._lock:
            return len(self._open)

    def put(self, wanted: Wanted) -> FrameRequest:
        """Add a question, which then waits for an image."""
        request = FrameRequest(wanted, self._executor, self._answer, self._notify)
        with self._lock:
            closed = self._closed
            if not closed:
                self._open.append(request)
        if closed:
            request.fail(NoAnswer(closed))
        return request

    def drop(self, request: FrameRequest) -> None:
        """Remove a question, answered or not."""
        with self._lock:
            self._open = [other for other in self._open if other is not request]
        request.fail(NoAnswer("The question was withdrawn."))

    def waiting(self, camera: int, fresh: bool) -> list[FrameRequest]:
        """Return the waiting questions that an image of this camera can answer; fresh: the image has not been
        handed out before."""
        with self._lock:
            return [
                request
                for request in self._open
                if request.wanted.camera in (None, camera)
                and (fresh or not request.wanted.fresh)
                and request.stage == "waiting"
            ]

    def close(self, sentence: str) -> None:
        """Fail all open questions and all later ones, with a sentence."""
        with self._lock:
            self._closed, left, self._open = sentence, self._open, []
        for request in left:
            request.fail(NoAnswer(sentence))
