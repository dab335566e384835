"""The slot with the newest frame, and the thread that empties it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True, eq=False)
class Arrival:
    """A message as it came. time: `perf_counter` seconds at its callback."""

    message: Any
    time: float


class NewestSlot:
    """Holds one message; a newer one replaces it. Nothing is ever queued."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._arrival: Arrival | None = None
        self._closed = False

    def put(self, message: Any) -> bool:
        """Store a message; True when it pushed out one that nobody had taken."""
        with self._condition:
            dropped = self._arrival is not None
            self._arrival = Arrival(message, perf_counter())
            self._condition.notify()
            return dropped

    def take(self) -> Arrival | None:
        """Wait for a message and take it; None once the slot is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._arrival is not None)
            if self._closed:
                return None
            arrival, self._arrival = self._arrival, None
            return arrival

    def close(self) -> bool:
        """Wake whoever waits, for good; True when a message was left untaken."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            return self._arrival is not None


class Worker:
    """A thread that handles the newest message, again and again.

    handle: called with each Arrival; failed: called with what it raised, after which the next message is handled. dropped:
    called once for each message that is never handled.
    """

    def __init__(self, handle: Callable[[Arrival], None], failed: Callable[[Exception], None], dropped: Callable[[], None]) -> None:
        self._handle, self._failed, self._dropped = handle, failed, dropped
        self._slot = NewestSlot()
        self._thread = threading.Thread(target=self._run, name="groma_worker", daemon=True)
        self._thread.start()

    def put(self, message: Any) -> None:
        """Store a message for the thread; returns at once."""
        if self._slot.put(message):
            self._dropped()

    def stop(self, timeout: float) -> bool:
        """Let the message in hand finish and end the thread; False if it still runs after `timeout` seconds."""
        if self._slot.close():
            self._dropped()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (arrival := self._slot.take()) is not None:
            try:
                self._handle(arrival)
            except Exception as error:  # one bad frame must not end the thread; it is counted and logged instead
                self._failed(error)
