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
    """Time of its callback, `perf_counter` seconds."""
    stream: int = 0
    """Number of the stream it belongs to, see `FrameProcessor.arrived`."""


@dataclass(frozen=True, eq=False)
class FrameJob:
    """The next frame for the perception thread."""

    camera: int
    arrival: StampedMessage
    fresh: bool
    """False if the message has been handed out before."""


class LatestFrameQueue:
    """Newest message of each of `count` cameras; a newer message replaces it. Thread-safe.

    A message stays available after it was taken, until the next one arrives, for later requests.
    """

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._newest: list[StampedMessage | None] = [None] * count
        self._fresh = [False] * count
        self._recalled = [False] * count
        self._next = 0
        self._closed = False

    def put(self, camera: int, message: Any, stream: int = 0) -> StampedMessage | None:
        """Store a message. Returns the message it replaced, if that was never taken."""
        with self._condition:
            dropped = self._newest[camera] if self._fresh[camera] else None
            self._newest[camera], self._fresh[camera] = StampedMessage(message, perf_counter(), stream), True
            self._condition.notify()
            return dropped

    def recall(self, camera: int | None) -> int | None:
        """Hand out the newest message of a camera again, even if it was taken before; None: of the camera
        that sent last. Returns the camera, or None if no message has arrived."""
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
        """Wait for a message and take it; cameras take turns. Returns None once the queue is closed."""
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
        """Close the queue and wake all waiting threads. Returns the cameras whose message was never taken."""
        with self._condition:
            left = [camera for camera, fresh in enumerate(self._fresh) if fresh]
            self._closed = True
            self._fresh = [False] * len(self._fresh)
            self._newest = [None] * len(self._newest)
            self._condition.notify_all()
            return left


class FrameThread:
    """Thread that processes the messages of a queue until it is closed.

    handle: called with each FrameJob; failed: called with the camera and the exception if `handle` raised
    one.
    """

    def __init__(
        self,
        queue: LatestFrameQueue,
        handle: Callable[[FrameJob], None],
        failed: Callable[[int, Exception], None],
    ) -> None:
        self._queue, self._handle, self._failed = queue, handle, failed
        self._thread = threading.Thread(target=self._run, name="groma_worker", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Wait for the thread to end; close the queue first. False if it is still running after `timeout`
        seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._queue.take()) is not None:
            try:
                self._handle(job)
            except Exception as error:  # one bad frame must not end the thread; `failed` counts and logs it
                self._failed(job.camera, error)
