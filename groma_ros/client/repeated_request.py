"""Requests to a service or an action that are repeated until a response arrives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.task import Future

AGAIN_SECONDS = 10.0


class RepeatedRequest:
    """A request that is sent immediately, and again every `again` seconds until it is answered.

    A server may receive a request before it has discovered the reader of its response; Fast DDS then drops
    the response, whatever the quality of service, and the caller would wait forever. Only for idempotent
    requests.

    send: sends the request once, e.g. `partial(client.call_async, request)`.
    """

    def __init__(self, send: Callable[[], Future], again: float = AGAIN_SECONDS) -> None:
        self._send, self._again = send, again
        self._open = [send()]
        self._due = time.monotonic() + again

    def done(self) -> bool:
        """Whether a response has arrived; repeats the request when due. Poll it while the executor spins."""
        if any(future.done() for future in self._open):
            return True
        if time.monotonic() >= self._due:
            self._open.append(self._send())
            self._due = time.monotonic() + self._again
        return False

    def result(self) -> Any:
        """Return the first response; call it when `done`."""
        return next(future.result() for future in self._open if future.done())
