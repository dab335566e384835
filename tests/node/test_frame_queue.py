"""The slots that hold one frame a camera, and the thread that empties them in turn."""

from __future__ import annotations

import threading
import time

from groma_ros.node.frame_queue import FrameJob, FrameThread, LatestFrameQueue


def taken(slots: LatestFrameQueue) -> tuple[int, object, bool]:
    turn = slots.take()
    assert turn is not None
    return turn.camera, turn.arrival.message, turn.fresh


def pushed_out(slots: LatestFrameQueue, message: object) -> object:
    arrival = slots.put(0, message)
    return arrival.message if arrival is not None else None


def test_a_newer_message_replaces_the_older() -> None:
    slots = LatestFrameQueue(1)
    assert [pushed_out(slots, number) for number in (1, 2, 3)] == [None, 1, 2]
    assert taken(slots) == (0, 3, True)
    assert pushed_out(slots, 4) is None


def test_cameras_take_turns_however_fast_one_of_them_is() -> None:
    slots = LatestFrameQueue(3)
    for camera in range(3):
        slots.put(camera, "first")
    order = []
    for number in range(9):
        order.append(taken(slots)[0])
        slots.put(0, number)
        slots.put(order[-1], number)
    assert order == [0, 1, 2] * 3


def test_a_message_can_be_recalled_once_it_was_taken() -> None:
    slots = LatestFrameQueue(2)
    assert slots.recall(None) is None and slots.recall(1) is None
    slots.put(1, "a")
    assert taken(slots) == (1, "a", True)
    assert slots.recall(None) == 1 and taken(slots) == (1, "a", False)
    slots.put(0, "b")
    assert slots.recall(None) == 0 and taken(slots) == (0, "b", True)
    assert slots.recall(1) == 1 and taken(slots) == (1, "a", False)


def test_taking_waits_and_closing_wakes() -> None:
    slots, ended = LatestFrameQueue(1), []
    thread = threading.Thread(target=lambda: ended.append(slots.take()))
    thread.start()
    assert slots.close() == []
    thread.join(5)
    assert ended == [None] and slots.take() is None


def test_closing_names_the_cameras_that_were_left() -> None:
    slots = LatestFrameQueue(3)
    slots.put(2, "x")
    slots.put(0, "x")
    taken(slots)
    assert slots.close() == [2]


class Handler:
    """Handles a message only when told to."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.failures: list[tuple[int, str]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.slots = LatestFrameQueue(1)
        self.worker = FrameThread(
            self.slots, self.handle, lambda camera, error: self.failures.append((camera, str(error)))
        )

    def handle(self, turn: FrameJob) -> None:
        self.started.set()
        assert self.go_on.wait(10)
        if turn.arrival.message == "bad":
            raise RuntimeError("bad message")
        self.seen.append(turn.arrival.message)

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + 10
        while len(self.seen) + len(self.failures) < count and time.monotonic() < end:
            time.sleep(0.005)


def test_only_the_newest_waiting_message_is_handled() -> None:
    handler = Handler()
    handler.slots.put(0, 0)
    assert handler.started.wait(10)
    assert [pushed_out(handler.slots, number) for number in range(1, 6)] == [None, 1, 2, 3, 4]
    handler.go_on.set()
    handler.wait_for(2)
    handler.slots.close()
    assert handler.worker.stop(10) and not handler.worker.alive
    assert handler.seen == [0, 5]


def test_an_error_is_reported_and_the_next_message_is_handled() -> None:
    handler = Handler()
    handler.go_on.set()
    handler.slots.put(0, "bad")
    handler.wait_for(1)
    handler.slots.put(0, "good")
    handler.wait_for(2)
    handler.slots.close()
    assert handler.worker.stop(10)
    assert handler.failures == [(0, "bad message")] and handler.seen == ["good"]


def test_stopping_finishes_the_message_in_hand_and_leaves_the_one_that_waits() -> None:
    handler = Handler()
    handler.slots.put(0, "in hand")
    assert handler.started.wait(10)
    handler.slots.put(0, "waiting")
    assert handler.slots.close() == [0]
    threading.Timer(0.1, handler.go_on.set).start()
    assert handler.worker.stop(10)
    assert handler.seen == ["in hand"]


def test_stopping_gives_up_on_a_message_that_takes_too_long() -> None:
    handler = Handler()
    handler.slots.put(0, "slow")
    assert handler.started.wait(10)
    handler.slots.close()
    start = time.monotonic()
    assert not handler.worker.stop(0.1)
    assert time.monotonic() - start < 5 and handler.worker.alive
    handler.go_on.set()
