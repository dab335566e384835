"""The slot that holds one frame, and the thread that empties it."""

from __future__ import annotations

import threading
import time

from groma_ros.node.worker import Arrival, NewestSlot, Worker


def test_a_newer_message_replaces_the_older() -> None:
    slot = NewestSlot()
    assert [slot.put(number) for number in (1, 2, 3)] == [False, True, True]
    arrival = slot.take()
    assert arrival is not None and arrival.message == 3
    assert not slot.put(4)


def test_taking_waits_and_closing_wakes() -> None:
    slot, taken = NewestSlot(), []
    thread = threading.Thread(target=lambda: taken.append(slot.take()))
    thread.start()
    assert not slot.close()
    thread.join(5)
    assert taken == [None] and slot.take() is None


class Handler:
    """Handles a message only when told to."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.failures: list[str] = []
        self.dropped = 0
        self.started, self.go_on = threading.Event(), threading.Event()

    def handle(self, arrival: Arrival) -> None:
        self.started.set()
        assert self.go_on.wait(10)
        if arrival.message == "bad":
            raise RuntimeError("bad message")
        self.seen.append(arrival.message)

    def worker(self) -> Worker:
        def count() -> None:
            self.dropped += 1

        return Worker(self.handle, lambda error: self.failures.append(str(error)), count)


def wait_for(handler: Handler, count: int) -> None:
    end = time.monotonic() + 10
    while len(handler.seen) + len(handler.failures) < count and time.monotonic() < end:
        time.sleep(0.005)


def test_only_the_newest_waiting_message_is_handled_and_the_others_are_counted() -> None:
    handler = Handler()
    worker = handler.worker()
    worker.put(0)
    assert handler.started.wait(10)
    for number in range(1, 6):
        worker.put(number)
    assert handler.dropped == 4
    handler.go_on.set()
    wait_for(handler, 2)
    assert worker.stop(10) and not worker.alive
    assert handler.seen == [0, 5] and handler.dropped == 4


def test_an_error_is_reported_and_the_next_message_is_handled() -> None:
    handler = Handler()
    handler.go_on.set()
    worker = handler.worker()
    worker.put("bad")
    wait_for(handler, 1)
    worker.put("good")
    wait_for(handler, 2)
    assert worker.stop(10)
    assert handler.failures == ["bad message"] and handler.seen == ["good"]


def test_stopping_finishes_the_message_in_hand_and_counts_the_one_that_waits() -> None:
    handler = Handler()
    worker = handler.worker()
    worker.put("in hand")
    assert handler.started.wait(10)
    worker.put("waiting")
    threading.Timer(0.1, handler.go_on.set).start()
    assert worker.stop(10)
    assert handler.seen == ["in hand"] and handler.dropped == 1


def test_stopping_gives_up_on_a_message_that_takes_too_long() -> None:
    handler = Handler()
    worker = handler.worker()
    worker.put("slow")
    assert handler.started.wait(10)
    start = time.monotonic()
    assert not worker.stop(0.1)
    assert time.monotonic() - start < 5 and worker.alive
    handler.go_on.set()
