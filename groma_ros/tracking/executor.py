"""Executors for questions to the language model: one with a thread of its own, one that answers at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from time import perf_counter
from typing import Any, TypeVar

from groma_ros.tracking.questions import Question, Reply
from groma_ros.types import Grounding

T = TypeVar("T")
Answer = Callable[[Question], list[Grounding]]
Ask = Callable[[Question], "Future[Reply]"]
"""Submits a question and returns immediately."""


def asking(executor: Executor, answer: Answer) -> Ask:
    """Return a function that submits questions to an executor, which answers them with `answer`."""

    def reply(question: Question) -> Reply:
        start = perf_counter()
        groundings = tuple(answer(question))
        return Reply(question, groundings, perf_counter() - start)

    return lambda question: executor.submit(reply, question)


class InlineExecutor(Executor):
    """Runs each call in the caller's thread before `submit` returns; used by replay."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call and return its completed future."""
        future: Future[T] = Future()
        _run(future, lambda: fn(*args, **kwargs))
        return future


class AnswerExecutor(Executor):
    """A daemon thread that runs calls in order of submission.

    `concurrent.futures.ThreadPoolExecutor` waits for its threads when the interpreter exits; a language model
    that hangs would keep the process alive.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="groma_language", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call. After `shutdown` the future is cancelled."""
        future: Future[T] = Future()
        with self._condition:
            closed = self._closed
            if not closed:
                # Cancelled calls hold their scenes, and may be many while the language model is slow.
                self._calls = deque(waiting for waiting in self._calls if not waiting[0].cancelled())
                self._calls.append((future, lambda: fn(*args, **kwargs)))
                self._condition.notify()
        if closed:
            _cancel(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Accept no more calls and cancel those that wait; the one that runs is finished."""
        with self._condition:
            self._closed = True
            left, self._calls = list(self._calls), deque()
            self._condition.notify()
        for future, _ in left:
            _cancel(future)
        if wait:
            self._thread.join()

    def stop(self, timeout: float) -> bool:
        """Shut down; False if a call still runs after `timeout` seconds."""
        self.shutdown(wait=False)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._calls)
                if self._closed:
                    return
                future, call = self._calls.popleft()
            _run(future, call)
            # Release the call and its result; they must not stay alive until the next call.
            del future, call


def _run(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except Exception as error:  # re-raised from the future
        future.set_exception(error)
    else:
        future.set_result(result)


def _cancel(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()
