"""One-off questions: the frame each one gets, how it ends, and what remains of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import Header

from groma_ros.node.frame_result import ImageResult
from groma_ros.node.request_queue import FrameRequest, NoAnswer, RequestQueue, Wanted
from groma_ros.tracking.executor import AnswerExecutor
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Frame, Goal
from tests.tracking.moving import scene
from tests.tracking.test_grounding_tracker import answer, at

VIEW = ImageResult(Header(frame_id="left"), Frame(np.zeros((4, 4, 3), np.uint8)), scene(1, {"a": (100, 100)}))


class Desk:
    """A queue whose answers are released on request, and the questions put to it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[str] = []
        self.rung = 0
        self.asker = AnswerExecutor()
        self.requests = RequestQueue(self.asker, self._answer, self._ring)

    def _ring(self) -> None:
        self.rung += 1

    def _answer(self, question: Question) -> Any:
        self.asked.append(question.standing.goals[0].text)
        assert self.go_on.wait(20)
        if self.asked[-1] == "bad":
            raise RuntimeError("out of memory")
        return answer(question)

    def put(self, text: str, camera: int | None = None, fresh: bool = False) -> FrameRequest:
        return self.requests.put(
            Wanted(camera, fresh, False, partial(Question, standing=StandingGoals((Goal(text),))))
        )


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.go_on.set()
    assert desk.asker.stop(20)


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_question_waits_is_looked_at_and_answered(desk: Desk) -> None:
    request = desk.put("a")
    assert (
        request.stage == "waiting"
        and desk.requests.waiting(0, fresh=False) == [request]
        and len(desk.requests) == 1
    )
    request.begin(VIEW)
    assert request.stage == "looking" and desk.requests.waiting(0, fresh=False) == []
    desk.go_on.set()
    until(lambda: request.stage == "answered")
    (grounding,) = request.result().groundings
    assert request.result().view is VIEW and grounding.detections[0].box == at(100, 100)
    assert desk.rung >= 2
    request.begin(VIEW)
    desk.requests.drop(request)
    assert len(desk.requests) == 0 and desk.asked == ["a"] and request.result().view is VIEW


def test_each_takes_only_a_frame_that_serves_it(desk: Desk) -> None:
    anyone, left, newest = desk.put("a", None, True), desk.put("a", 0, True), desk.put("a", 1, False)
    assert desk.requests.waiting(0, fresh=True) == [anyone, left]
    assert desk.requests.waiting(0, fresh=False) == []
    assert desk.requests.waiting(1, fresh=True) == [anyone, newest]
    assert desk.requests.waiting(1, fresh=False) == [newest]


def test_what_the_model_raised_is_its_end(desk: Desk) -> None:
    request = desk.put("bad")
    request.begin(VIEW)
    desk.go_on.set()
    until(lambda: request.stage == "answered")
    with pytest.raises(RuntimeError, match="out of memory"):
        request.result()


def test_a_question_that_is_dropped_is_not_asked_any_more(desk: Desk) -> None:
    first, second = desk.put("first"), desk.put("second")
    first.begin(VIEW)
    until(lambda: desk.asked)
    second.begin(VIEW)
    desk.requests.drop(second)
    desk.requests.drop(first)
    desk.go_on.set()
    third = desk.put("a")
    third.begin(VIEW)
    until(lambda: third.stage == "answered")
    assert desk.asked == ["first", "a"] and third.result().groundings[0].present > 0.5
    for request in (first, second):
        with pytest.raises(NoAnswer, match="withdrawn"):
            request.result()


def test_closing_ends_all_with_the_sentence_and_those_that_come_later(desk: Desk) -> None:
    waiting, looking = desk.put("a"), desk.put("a")
    looking.begin(VIEW)
    desk.requests.close("The node is not active.")
    for request in (waiting, looking, desk.put("a")):
        assert request.stage == "answered"
        with pytest.raises(NoAnswer, match="not active"):
            request.result()


def test_the_rest_of_the_work_is_done_in_the_language_models_thread(desk: Desk) -> None:
    def finish(view: ImageResult, groundings: list[Any]) -> tuple[str, bool]:
        return threading.current_thread().name, view is VIEW

    desk.go_on.set()
    question = partial(Question, standing=StandingGoals((Goal("a"),)))
    request = desk.requests.put(Wanted(None, False, False, question, finish))
    request.begin(VIEW)
    until(request.future.done)
    assert request.result().finished == ("groma_language", True)


def test_a_closed_executor_ends_a_question(desk: Desk) -> None:
    request = desk.put("a")
    desk.asker.shutdown(wait=False)
    request.begin(VIEW)
    with pytest.raises(NoAnswer, match="not active"):
        request.result()


def test_a_question_that_cannot_be_made_fails(desk: Desk) -> None:
    def refuse(_: object) -> Question:
        raise ValueError("no such region")

    request = desk.requests.put(Wanted(None, False, False, refuse))
    request.begin(VIEW)
    with pytest.raises(ValueError, match="no such region"):
        request.result()
