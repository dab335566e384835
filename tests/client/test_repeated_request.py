"""Requests repeated until they are answered."""

from __future__ import annotations

import time

from rclpy.task import Future

from groma_ros.client.repeated_request import RepeatedRequest


def test_one_that_is_answered_is_sent_once() -> None:
    sent: list[Future] = []

    def send() -> Future:
        sent.append(Future())
        return sent[-1]

    request = RepeatedRequest(send, again=60.0)
    assert not request.done() and len(sent) == 1
    sent[0].set_result("yes")
    assert request.done() and request.result() == "yes" and len(sent) == 1


def test_lost_requests_are_repeated_and_late_answers_accepted() -> None:
    sent: list[Future] = []

    def send() -> Future:
        sent.append(Future())
        return sent[-1]

    request, end = RepeatedRequest(send, again=0.02), time.monotonic() + 20
    while len(sent) < 3 and time.monotonic() < end:
        assert not request.done()
        time.sleep(0.005)
    sent[1].set_result("late")
    assert request.done() and request.result() == "late" and len(sent) == 3
