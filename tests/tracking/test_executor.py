"""The language model's thread, and the one that answers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from groma_ros.tracking.executor import AnswerExecutor, InlineExecutor, Question, StandingGoals
from groma_ros.types import Goal, Grounding
from tests.tracking.moving import scene


def question(text: str) -> Question:
    return Question(scene(0, {"a": (100, 100)}), StandingGoals((Goal(text),)))


def said(asked: Question) -> list[Grounding]:
    if asked.standing.goals[0].text == "bad":
        raise RuntimeError("the model broke")
    return [Grounding(goal, (), 0.5, 0.25) for goal in asked.standing.goals]


class Gate:
    """Answers when let."""

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


def test_inline_answers_once() -> None:
    line = InlineExecutor(said)
    assert line.collect(None) is None
    asked = question("mug")
    line.ask(asked)
    reply = line.collect(None)
    assert reply is not None and reply.question is asked and reply.groundings[0].present == 0.5
    assert line.collect(None) is None
    line.ask(question("bad"))
    with pytest.raises(RuntimeError, match="broke"):
        line.collect(None)
    assert line.collect(None) is None


def test_streams_are_answered_in_order_and_each_collects_its_own(gate: Gate) -> None:
    asker, rung = AnswerExecutor(gate), []
    lines = [asker.line(lambda index=index: rung.append(index)) for index in range(3)]  # type: ignore[misc]
    for index, line in enumerate(lines):
        line.ask(question(f"goal {index}"))
    assert all(line.collect(0.0) is None for line in lines)
    gate.open.set()
    for index in (2, 0, 1):
        reply = lines[index].collect(10)
        assert reply is not None and reply.groundings[0].goal.text == f"goal {index}" and reply.seconds >= 0
    assert gate.order == ["goal 0", "goal 1", "goal 2"]
    wait_until(lambda: len(rung) == 3)
    assert rung == [0, 1, 2] and asker.stop(10) and not asker.alive


def test_an_error_goes_to_the_one_who_asked_and_the_thread_lives() -> None:
    asker = AnswerExecutor(said)
    bad, good = asker.line(), asker.line()
    bad.ask(question("bad"))
    good.ask(question("mug"))
    with pytest.raises(RuntimeError, match="the model broke"):
        bad.collect(10)
    assert bad.collect(0.0) is None
    reply = good.collect(10)
    assert reply is not None and reply.groundings[0].goal.text == "mug"
    assert asker.stop(10)


def test_a_question_that_waits_can_be_taken_back(gate: Gate) -> None:
    asker = AnswerExecutor(gate)
    first, second, third = (asker.line() for _ in range(3))
    for name, line in zip("abc", (first, second, third), strict=True):
        line.ask(question(name))
    wait_until(lambda: gate.order)
    second.withdraw()
    first.withdraw()  # in hand already
    gate.open.set()
    assert first.collect(10) is not None and third.collect(10) is not None and second.collect(0.0) is None
    assert gate.order == ["a", "c"] and asker.stop(10)


def test_closing_wakes_who_waits_and_drops_what_waits(gate: Gate) -> None:
    asker, got = AnswerExecutor(gate), []
    line, other = asker.line(), asker.line()
    line.ask(question("in hand"))
    wait_until(lambda: gate.order)
    other.ask(question("waits"))
    thread = threading.Thread(target=lambda: got.append(other.collect(None)))
    thread.start()
    asker.close()
    thread.join(10)
    assert got == [None]
    assert not asker.stop(0.05) and asker.alive
    gate.open.set()
    assert asker.stop(10) and gate.order == ["in hand"]
    line.ask(question("late"))
    assert gate.order == ["in hand"]


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
