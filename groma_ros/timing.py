"""Who listens learns when a stage inside a call began and ended; while nobody does, a stage costs one
look-up."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Marks = dict[str, tuple[float, float]]
"""When each stage last began and ended, in seconds of `now`."""

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu: what the process itself has worked, on all its threads; nothing else on the machine makes it longer.
"""
_clock = CLOCKS["wall"]

_MARKS: ContextVar[Marks | None] = ContextVar("marks", default=None)


def now() -> float:
    """Seconds of the clock in use, from any beginning."""
    return _clock()


def use_clock(name: str) -> None:
    """Take one of `CLOCKS` for the whole process; wall until then."""
    global _clock
    _clock = CLOCKS[name]


@contextmanager
def listening() -> Iterator[Marks]:
    """The marks of the stages that run inside the block, in this thread."""
    marks: Marks = {}
    token = _MARKS.set(marks)
    try:
        yield marks
    finally:
        _MARKS.reset(token)


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: every call of the function is a stage of this name."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            marks = _MARKS.get()
            if marks is None:
                return function(*args, **kwargs)
            begin = now()
            result = function(*args, **kwargs)
            marks[name] = (begin, now())
            return result

        return call

    return decorate
