"""Buffer messages of a topic by stamp, to pair depth and camera_info with images.

message_filters does the same where installed, but not for images that are answered seconds after they
arrived.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any, NamedTuple

SPAN_SECONDS = 2.0
"""Time for which messages are kept, by stamps; reserved ones are kept longer."""
MAX_BYTES = 256 * 2**20
MAX_MESSAGES = 1000
"""Bounds for large depth images, and for cameras with constant stamps."""
MAX_RESERVATIONS = 8


class DepthAndInfo(NamedTuple):
    """Depth image and camera_info of an image."""

    depth: Any
    """None if none arrived."""
    info: Any
    """None if none arrived."""


class _Entry(NamedTuple):
    stamp: int
    size: int
    message: Any


class StampBuffer:
    """Newest messages of a topic by stamp. One thread puts, any other may find.

    span: seconds of stamps before the newest message that are kept. Messages near a reserved stamp are kept
    longer, until MAX_RESERVATIONS later stamps have been reserved.
    """

    def __init__(self, span: float = SPAN_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self._span, self._max_bytes = int(span * 1e9), max_bytes
        self._condition = threading.Condition()
        self._messages: deque[_Entry] = deque(maxlen=MAX_MESSAGES)
        self._bytes = 0
        self._reserved: dict[int, _Entry | None] = {}

    def put(self, stamp: int, message: Any, size: int = 0) -> None:
        """Store a message. stamp: nanoseconds; size: in bytes, if it counts towards the limit."""
        with self._condition:
            entry = _Entry(stamp, size, message)
            if len(self._messages) == MAX_MESSAGES:
                self._drop()
            self._messages.append(entry)
            self._bytes += size
            for wanted, best in self._reserved.items():
                if best is None or abs(stamp - wanted) <= abs(best.stamp - wanted):
                    self._reserved[wanted] = entry
            # A stamp far ahead of the newest one is from before the clock jumped back.
            while len(self._messages) > 1 and (
                abs(self._messages[0].stamp - stamp) > self._span or self._bytes > self._max_bytes
            ):
                self._drop()
            self._condition.notify_all()

    def reserve(self, stamp: int) -> None:
        """Keep the message nearest to an image's stamp, even if it has yet to arrive, however long the image
        is processed."""
        with self._condition:
            if stamp in self._reserved:
                return
            self._reserved[stamp] = self._nearest(stamp)
            while len(self._reserved) > MAX_RESERVATIONS:
                del self._reserved[next(iter(self._reserved))]

    def find(self, stamp: int, tolerance: float, wait: float = 0.0) -> Any:
        """Return the message with the nearest stamp, the later of two; None if none is within `tolerance`
        seconds.

        Waits up to `wait` seconds for one, unless a message later than the image shows that none will come.
        """
        end = monotonic() + wait
        with self._condition:
            while True:
                found = self._near(stamp, tolerance)
                left = end - monotonic()
                passed = bool(self._messages) and self._messages[-1].stamp > stamp
                if found is not None or left <= 0 or passed:
                    return found
                self._condition.wait(left)

    def latest(self) -> Any:
        """Return the newest message; None if there is none."""
        with self._condition:
            return self._messages[-1].message if self._messages else None

    def _near(self, stamp: int, tolerance: float) -> Any:
        found = [entry for entry in (self._nearest(stamp), self._reserved.get(stamp)) if entry is not None]
        best = min(found, key=lambda entry: abs(entry.stamp - stamp), default=None)
        return best.message if best is not None and abs(best.stamp - stamp) <= tolerance * 1e9 else None

    def _nearest(self, stamp: int) -> _Entry | None:
        return min(reversed(self._messages), key=lambda entry: abs(entry.stamp - stamp), default=None)

    def _drop(self) -> None:
        self._bytes -= self._messages.popleft().size
