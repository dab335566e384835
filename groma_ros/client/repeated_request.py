"""Requests to a service or an action that are sent again until an answer comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.task import Future

AGAIN_SECONDS = 10.0


class RepeatedRequest:
    """A request, sent at once and again every `again` seconds until one of them is answered.

    A server may take a request before it has met the reader of its answer; then Fast DDS drops the answer,
    whatever the quality of service, and the caller waits for ever. Only for requests that may be repeated.

    send: sends it once, such as `partial(client.call_async, request)`.
    """

    def __init__(self, send: Callable[[], Future], again: float = AGAIN_SECONDS) -> None:
        self._send, self._again = send, again
        self._open = [send()]
        self._due = time.monotonic() + again

    def done(self) -> bool:
        """Whether an answer is there; to be called again and again while the executor spins."""
        if any(future.done() for future in self._open):
            return True
        if time.monotonic() >= self._due:
            self._open.append(self._send())
            self._due = time.monotonic() + self._again
        return False

    def result(self) -> Any:
        """The first answer, once `done`."""
        return next(future.result() for future in self._open if future.done())
