"""Which depth image and camera_info belong to an image: message_filters' job, which not every installation
has."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any, NamedTuple

DEPTH = 60
"""Messages of a topic that are kept: two seconds of a fast camera."""


class DepthAndInfo(NamedTuple):
    """The depth image and the camera_info of an image, None for one that did not come."""

    depth: Any
    info: Any


class StampBuffer:
    """The newest messages of a topic by their stamp. One thread puts, any other may find."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._messages: deque[tuple[int, Any]] = deque(maxlen=DEPTH)

    def put(self, stamp: int, message: Any) -> None:
        """Keep a message. stamp: nanoseconds."""
        with self._condition:
            self._messages.append((stamp, message))
            self._condition.notify_all()

    def clear(self) -> None:
        """Forget all messages."""
        with self._condition:
            self._messages.clear()

    def find(self, stamp: int, tolerance: float, wait: float = 0.0) -> Any:
        """The message whose stamp is nearest, the newer of two; None if none is within `tolerance` seconds.

        Waits up to `wait` seconds for one, unless a message that came later than the image shows that none
        will come.
        """
        end = monotonic() + wait
        with self._condition:
            while True:
                found = self._nearest(stamp, tolerance)
                left = end - monotonic()
                passed = bool(self._messages) and self._messages[-1][0] > stamp
                if found is not None or left <= 0 or passed:
                    return found
                self._condition.wait(left)

    def latest(self) -> Any:
        """The newest message; None without one."""
        with self._condition:
            return self._messages[-1][1] if self._messages else None

    def _nearest(self, stamp: int, tolerance: float) -> Any:
        best = min(reversed(self._messages), key=lambda entry: abs(entry[0] - stamp), default=None)
        return best[1] if best is not None and abs(best[0] - stamp) <= tolerance * 1e9 else None
