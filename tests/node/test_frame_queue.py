"""The queue of the newest message of each camera, and the thread that processes them in turn."""

from __future__ import annotations

import threading
import time

from groma_ros.node.frame_queue import FrameJob, FrameThread, LatestFrameQueue


def taken(queue: LatestFrameQueue) -> tuple[int, object, bool]:
    job = queue.take()
    assert job is not None
    return job.camera, job.arrival.message, job.fresh


def pushed_out(queue: LatestFrameQueue, message: object) -> object:
    arrival = queue.put(0, message)
    return arrival.message if arrival is not None else None


def test_a_newer_message_replaces_the_older() -> None:
    queue = LatestFrameQueue(1)
    assert [pushed_out(queue, number) for number in (1, 2, 3)] == [None, 1, 2]
    assert taken(queue) == (0, 3, True)
    assert pushed_out(queue, 4) is None


def test_cameras_take_turns_however_fast_one_of_them_is() -> None:
    queue = LatestFrameQueue(3)
    for camera in range(3):
        queue.put(camera, "first")
    order = []
    for number in range(9):
        order.append(taken(queue)[0])
        queue.put(0, number)
        queue.put(order[-1], number)
    assert order == [0, 1, 2] * 3


def test_a_message_can_be_recalled_once_it_was_taken() -> None:
    queue = LatestFrameQueue(2)
    assert queue.recall(None) is None and queue.recall(1) is None
    queue.put(1, "a")
    assert taken(queue) == (1, "a", True)
    assert queue.recall(None) == 1 and taken(queue) == (1, "a", False)
    queue.put(0, "b")
    assert queue.recall(None) == 0 and taken(queue) == (0, "b", True)
    assert queue.recall(1) == 1 and taken(queue) == (1, "a", False)


def test_taking_waits_and_closing_wakes() -> None:
    queue, ended = LatestFrameQueue(1), []
    thread = threading.Thread(target=lambda: ended.append(queue.take()))
    thread.start()
    assert queue.close() == []
    thread.join(5)
    assert ended == [None] and queue.take() is None


def test_closing_names_the_cameras_that_were_left() -> None:
    queue = LatestFrameQueue(3)
    queue.put(2, "x")
    queue.put(0, "x")
    taken(queue)
    assert queue.close() == [2]


class Handler:
    """Handles a message only on request."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.failures: list[tuple[int, str]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.queue = LatestFrameQueue(1)
        self.worker = FrameThread(
            self.queue, self.handle, lambda camera, error: self.failures.append((camera, str(error)))
        )

    def handle(self, job: FrameJob) -> None:
        self.started.set()
        assert self.go_on.wait(10)
        if job.arrival.message == "bad":
            raise RuntimeError("bad message")
        self.seen.append(job.arrival.message)

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + 10
        while len(self.seen) + len(self.failures) < count and time.monotonic() < end:
            time.sleep(0.005)


def test_only_the_newest_waiting_message_is_handled() -> None:
    handler = Handler()
    handler.queue.put(0, 0)
    assert handler.started.wait(10)
    assert [pushed_out(handler.queue, number) for number in range(1, 6)] == [None, 1, 2, 3, 4]
    handler.go_on.set()
    handler.wait_for(2)
    handler.queue.close()
    assert handler.worker.stop(10) and not handler.worker.alive
    assert handler.seen == [0, 5]


def test_an_error_is_reported_and_the_next_message_is_handled() -> None:
    handler = Handler()
    handler.go_on.set()
    handler.queue.put(0, "bad")
    handler.wait_for(1)
    handler.queue.put(0, "good")
    handler.wait_for(2)
    handler.queue.close()
    assert handler.worker.stop(10)
    assert handler.failures == [(0, "bad message")] and handler.seen == ["good"]


def test_stopping_finishes_the_message_in_progress_and_leaves_the_waiting_one() -> None:
    handler = Handler()
    handler.queue.put(0, "in progress")
    assert handler.started.wait(10)
    handler.queue.put(0, "waiting")
    assert handler.queue.close() == [0]
    threading.Timer(0.1, handler.go_on.set).start()
    assert handler.worker.stop(10)
    assert handler.seen == ["in progress"]


def test_stopping_gives_up_on_a_message_that_takes_too_long() -> None:
    handler = Handler()
    handler.queue.put(0, "slow")
    assert handler.started.wait(10)
    handler.queue.close()
    start = time.monotonic()
    assert not handler.worker.stop(0.1)
    assert time.monotonic() - start < 5 and handler.worker.alive
    handler.go_on.set()
