"""Queue of the newest message of each camera, and the thread that processes them in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True, eq=False)
class StampedMessage:
    """A received message."""

    message: Any
    time: float
    """`perf_counter` seconds at its callback."""
    stream: int = 0
    """Number of the camera's stream it belongs to, see `FrameProcessor.arrived`."""


@dataclass(frozen=True, eq=False)
class FrameJob:
    """The next frame for the perception thread."""

    camera: int
    arrival: StampedMessage
    fresh: bool
    """Whether it is handed out for the first time."""


class LatestFrameQueue:
    """Holds the newest message of each of `count` cameras; a newer one replaces it. Any thread may call it.

    A message that was taken is kept until the next one arrives, so that it can be used for a later request.
    """

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._newest: list[StampedMessage | None] = [None] * count
        self._fresh = [False] * count
        self._recalled = [False] * count
        self._next = 0
        self._closed = False

    def put(self, camera: int, message: Any, stream: int = 0) -> StampedMessage | None:
        """Store a message; the one it pushed out, if nobody had taken that."""
        with self._condition:
            dropped = self._newest[camera] if self._fresh[camera] else None
            self._newest[camera], self._fresh[camera] = StampedMessage(message, perf_counter(), stream), True
            self._condition.notify()
            return dropped

    def recall(self, camera: int | None) -> int | None:
        """Have the newest message of a camera, or of the one that sent last, handed out, again if it was
        already. The camera; None if no message has come."""
        with self._condition:
            times = {index: arrival.time for index, arrival in enumerate(self._newest) if arrival is not None}
            chosen = (
                camera if camera is not None else max(times, key=lambda index: times[index], default=None)
            )
            if chosen not in times:
                return None
            self._recalled[chosen] = True
            self._condition.notify()
            return chosen

    def take(self) -> FrameJob | None:
        """Wait for a message and take it, the cameras in turn; None once the slots are closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or any(self._fresh) or any(self._recalled))
            if self._closed:
                return None
            count = len(self._newest)
            order = [(self._next + step) % count for step in range(count)]
            camera = next(index for index in order if self._fresh[index] or self._recalled[index])
            self._next = (camera + 1) % count
            arrival, fresh = self._newest[camera], self._fresh[camera]
            self._fresh[camera] = self._recalled[camera] = False
            assert arrival is not None
            return FrameJob(camera, arrival, fresh)

    def close(self) -> list[int]:
        """Wake whoever waits, for good; the cameras of which a message was left untaken."""
        with self._condition:
            left = [camera for camera, fresh in enumerate(self._fresh) if fresh]
            self._closed = True
            self._fresh = [False] * len(self._fresh)
            self._newest = [None] * len(self._newest)
            self._condition.notify_all()
            return left


class FrameThread:
    """A thread that handles the newest messages of the slots, again and again.

    handle: called with each FrameJob; failed: called with the camera and what it raised, after which the next
    message is handled.
    """

    def __init__(
        self,
        slots: LatestFrameQueue,
        handle: Callable[[FrameJob], None],
        failed: Callable[[int, Exception], None],
    ) -> None:
        self._slots, self._handle, self._failed = slots, handle, failed
        self._thread = threading.Thread(target=self._run, name="groma_worker", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """End the thread after the message in progress, once the slots are closed; False if it still runs
        after `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (turn := self._slots.take()) is not None:
            try:
                self._handle(turn)
            except (
                Exception
            ) as error:  # one bad frame must not end the thread; it is counted and logged instead
                self._failed(turn.camera, error)
