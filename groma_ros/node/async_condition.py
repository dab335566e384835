"""How a callback of the executor waits for another thread without keeping the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.node import Node
from rclpy.task import Future


class AsyncCondition:
    """Coroutines of a node's executor wait for a condition; whoever may have changed it rings, from any
    thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._waiting: list[Future] = []

    def ring(self) -> None:
        """Have every waiting coroutine look at its condition again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)
        executor = self._node.executor
        if waiting and executor is not None:
            # An executor of Jazzy and before looks at its coroutines when something wakes it, and a future
            # does not.
            executor.wake()

    @property
    def awaited(self) -> bool:
        """Whether a coroutine waits."""
        return bool(self._waiting)

    async def until(self, done: Callable[[], bool]) -> None:
        """Return once `done()` holds; it is called at once, and after every ring."""
        while True:
            future = Future()
            with self._lock:
                self._waiting.append(future)
            if done():
                with self._lock:
                    self._waiting = [other for other in self._waiting if other is not future]
                return
            await future
