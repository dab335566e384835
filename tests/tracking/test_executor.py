"""The language model's thread, and the one that answers at once."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from groma_ros.tracking.executor import AnswerExecutor, InlineExecutor, asking
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Goal, Grounding
from tests.tracking.moving import scene


def question(text: str) -> Question:
    return Question(scene(0, {"a": (100, 100)}), StandingGoals((Goal(text),)))


def said(asked: Question) -> list[Grounding]:
    if asked.standing.goals[0].text == "bad":
        raise RuntimeError("the model broke")
    return [Grounding(goal, (), 0.5, 0.25) for goal in asked.standing.goals]


class Gate:
    """Answers on request."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.open = threading.Event()

    def __call__(self, asked: Question) -> list[Grounding]:
        self.order.append(asked.standing.goals[0].text)
        assert self.open.wait(10)
        return said(asked)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def wait_until(done: object) -> None:
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.005)


def test_inline_answers_at_once() -> None:
    ask = asking(InlineExecutor(), said)
    asked = question("mug")
    reply = ask(asked).result(0)
    assert reply.question is asked and reply.groundings[0].present == 0.5 and reply.seconds >= 0
    with pytest.raises(RuntimeError, match="broke"):
        ask(question("bad")).result(0)


def test_questions_are_answered_in_order(gate: Gate) -> None:
    executor, done = AnswerExecutor(), []
    futures = [asking(executor, gate)(question(f"goal {index}")) for index in range(3)]
    for index, future in enumerate(futures):

        def note(_: object, index: int = index) -> None:
            done.append(index)

        future.add_done_callback(note)
    assert not any(future.done() for future in futures)
    gate.open.set()
    for index in (2, 0, 1):
        assert futures[index].result(10).groundings[0].goal.text == f"goal {index}"
    assert gate.order == ["goal 0", "goal 1", "goal 2"]
    wait_until(lambda: len(done) == 3)
    assert done == [0, 1, 2] and executor.stop(10) and not executor.alive


def test_an_error_goes_to_the_one_who_asked_and_the_thread_lives() -> None:
    executor = AnswerExecutor()
    ask = asking(executor, said)
    bad, good = ask(question("bad")), ask(question("mug"))
    with pytest.raises(RuntimeError, match="the model broke"):
        bad.result(10)
    assert good.result(10).groundings[0].goal.text == "mug"
    assert executor.stop(10)


def test_a_question_that_waits_can_be_taken_back(gate: Gate) -> None:
    executor = AnswerExecutor()
    first, second, third = (asking(executor, gate)(question(name)) for name in "abc")
    wait_until(lambda: gate.order)
    assert second.cancel() and not first.cancel(), "the first is in hand already"
    gate.open.set()
    assert first.result(10) and third.result(10)
    assert gate.order == ["a", "c"] and executor.stop(10)


def test_questions_taken_back_free_their_scenes_while_the_model_thinks(gate: Gate) -> None:
    executor = AnswerExecutor()
    ask = asking(executor, gate)
    first = ask(question("in hand"))
    wait_until(lambda: gate.order)
    scenes = []
    for index in range(20):
        asked = question(f"goal {index}")
        scenes.append(weakref.ref(asked.scene))
        waiting = ask(asked)
        if index < 19:
            assert waiting.cancel()
    del asked
    gc.collect()
    assert [index for index, kept in enumerate(scenes) if kept() is not None] == [19]
    gate.open.set()
    assert first.result(10) and waiting.result(10)
    assert gate.order == ["in hand", "goal 19"] and executor.stop(10)


def test_closing_cancels_what_waits_and_what_comes(gate: Gate) -> None:
    executor = AnswerExecutor()
    ask = asking(executor, gate)
    first = ask(question("in hand"))
    wait_until(lambda: gate.order)
    second = ask(question("waits"))
    executor.shutdown(wait=False)
    with pytest.raises(CancelledError):
        second.result(10)
    assert not executor.stop(0.05) and executor.alive
    gate.open.set()
    assert first.result(10) and executor.stop(10)
    assert ask(question("late")).cancelled() and gate.order == ["in hand"]


def test_a_process_ends_though_the_model_hangs() -> None:
    """The executor's thread is a daemon: `concurrent.futures` would wait for it at exit."""
    code = (
        "import threading, time; from groma_ros.tracking.executor import AnswerExecutor;"
        "started = threading.Event();"
        "AnswerExecutor().submit(lambda: (started.set(), time.sleep(60))); started.wait()"
    )
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    assert time.monotonic() - begin < 40


def test_sets_of_goals_are_the_same_where_their_answers_must_be() -> None:
    base = StandingGoals((Goal("mug"),), 3, 0.5)
    assert base.key == StandingGoals((Goal("mug"),), 3, 0.5).key
    for other in (
        StandingGoals((Goal("mug"),), 4, 0.5),
        StandingGoals((Goal("mug"),), 3, 0.6),
        StandingGoals((Goal("mug", "one"),), 3, 0.5),
        StandingGoals((Goal("mug", min_score=0.1),), 3, 0.5),
        StandingGoals((), 3, 0.5),
    ):
        assert other.key != base.key
