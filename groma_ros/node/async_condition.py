"""Wait in a coroutine of the executor for another thread, or for a time, without blocking the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.task import Future

JUMP_SECONDS = 60.0
"""A larger step of the clock between two reads of `over` does not count as elapsed time."""


class Timeout:
    """Timeout in seconds of a node's clock; read `over` several times a second.

    A simulated clock may jump: back when a simulation restarts, far ahead with its first message. Jumps are
    ignored, so they neither block nor trigger the timeout.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._left = clock, round(seconds * 1e9)
        self._last = clock.now().nanoseconds

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        now = self._clock.now().nanoseconds
        passed, self._last = now - self._last, now
        if 0 < passed <= JUMP_SECONDS * 1e9:
            self._left -= passed
        return self._left <= 0


class AsyncCondition:
    """A condition on which coroutines of a node's executor wait; any thread may notify them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._waiting: list[Future] = []

    def notify_all(self) -> None:
        """Make every waiting coroutine check its condition again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)
        executor = self._node.executor
        if waiting and executor is not None:
            # Executors up to Jazzy run their coroutines only when something wakes them, and a future does
            # not.
            executor.wake()

    @property
    def awaited(self) -> bool:
        """Whether any coroutine is waiting."""
        return bool(self._waiting)

    async def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until `done()` is true. It is called immediately, then after every `notify_all`."""
        while True:
            future = Future()
            with self._lock:
                self._waiting.append(future)
            if done():
                with self._lock:
                    self._waiting = [other for other in self._waiting if other is not future]
                return
            await future
