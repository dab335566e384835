"""Opt-in timing of pipeline stages. Without a listener a stage costs one context variable lookup."""

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
"""Start and end of the last call of each stage, in seconds of `now`."""

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""wall: elapsed time; cpu: processor time of this process in all threads, independent of other load on the
machine."""
_clock = CLOCKS["wall"]

_MARKS: ContextVar[Marks | None] = ContextVar("marks", default=None)


def now() -> float:
    """Seconds of the selected clock, from an arbitrary start."""
    return _clock()


def use_clock(name: str) -> None:
    """Select one of `CLOCKS` for the whole process; the default is wall."""
    global _clock
    _clock = CLOCKS[name]


@contextmanager
def listening() -> Iterator[Marks]:
    """Collect the marks of stages that run inside the block, in this thread."""
    marks: Marks = {}
    token = _MARKS.set(marks)
    try:
        yield marks
    finally:
        _MARKS.reset(token)


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: time each call of the function as a stage of this name."""

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
