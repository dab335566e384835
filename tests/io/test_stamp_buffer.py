"""Matching of depth images to images by stamp."""

from __future__ import annotations

import threading
import time

import pytest

from groma_ros.io.stamp_buffer import MAX_MESSAGES, MAX_RESERVATIONS, StampBuffer

MS = 1_000_000


def buffer(*milliseconds: int) -> StampBuffer:
    found = StampBuffer()
    for stamp in milliseconds:
        found.put(stamp * MS, f"at {stamp}")
    return found


@pytest.mark.parametrize(
    ("stamp", "found"),
    [
        (100, "at 100"),
        (109, "at 100"),
        (126, "at 133"),
        (155, None),
        (79, None),
        (120, "at 133"),
        (113, "at 100"),
    ],
)
def test_the_nearest_stamp_within_the_tolerance_belongs_to_it(stamp: int, found: str | None) -> None:
    assert buffer(100, 133, 200).find(stamp * MS, 0.02) == found


def test_an_equal_stamp_needs_no_tolerance_and_the_newer_of_two_counts() -> None:
    messages = buffer(100, 133)
    messages.put(100 * MS, "again")
    assert messages.find(100 * MS, 0.0) == "again" and messages.find(101 * MS, 0.0) is None


def test_it_waits_for_what_may_still_come() -> None:
    messages = buffer(100)
    threading.Timer(0.1, lambda: messages.put(200 * MS, "late")).start()
    assert messages.find(200 * MS, 0.02, wait=20.0) == "late"


def test_it_does_not_wait_once_a_later_one_has_come() -> None:
    start = time.monotonic()
    assert buffer(100, 300).find(200 * MS, 0.02, wait=60.0) is None
    assert time.monotonic() - start < 30


def test_waiting_ends() -> None:
    assert buffer(100).find(200 * MS, 0.02, wait=0.05) is None
    assert StampBuffer().find(0, 1.0, wait=0.01) is None


@pytest.mark.parametrize("rate", [30, 60, 90, 200])
def test_messages_of_two_seconds_are_kept_at_any_rate(rate: int) -> None:
    """An image looks for its own depth among everything that was recorded up to a second after it."""
    stamps = [int(index * 1e9 / rate) for index in range(4 * rate)]
    messages = StampBuffer()
    for index, stamp in enumerate(stamps):
        messages.put(stamp, index)
        if index >= rate:
            assert messages.find(stamps[index - rate], 0.0) == index - rate
    assert messages.find(0, 0.001) is None
    assert messages.latest() == 4 * rate - 1


def test_a_reserved_message_outlives_the_others() -> None:
    """Images of a slow model are answered seconds after they came."""
    messages = buffer(0, 33)
    messages.reserve(33 * MS)
    for index in range(2, 200):
        messages.put(index * 33 * MS, f"at {index * 33}")
    assert messages.find(33 * MS, 0.0) == "at 33" and messages.find(0, 0.001) is None


def test_a_reservation_takes_what_comes_later_and_the_nearest_of_it() -> None:
    messages = StampBuffer(span=0.1)
    messages.reserve(100 * MS)
    for stamp in (80, 98, 101, 120, 900, 1900):
        messages.put(stamp * MS, f"at {stamp}")
    assert messages.find(100 * MS, 0.02) == "at 101" and messages.find(100 * MS, 0.0005) is None


def test_reservations_are_bounded() -> None:
    messages = StampBuffer(span=0.1)
    for stamp in range(MAX_RESERVATIONS + 1):
        messages.reserve(stamp * MS)
        messages.put(stamp * MS, stamp)
    messages.put(9000 * MS, "newest")
    assert messages.find(0, 0.0) is None
    assert all(messages.find(stamp * MS, 0.0) == stamp for stamp in range(1, MAX_RESERVATIONS + 1))


def test_memory_is_bounded_by_bytes_and_by_count() -> None:
    messages = StampBuffer(max_bytes=1000)
    for stamp in range(10):
        messages.put(stamp * MS, stamp, size=300)
    assert [messages.find(stamp * MS, 0.0) for stamp in range(10)] == [None] * 7 + [7, 8, 9]
    messages.put(10 * MS, 10, size=5000)
    assert messages.latest() == 10 and messages.find(9 * MS, 0.0005) is None
    still = StampBuffer()
    for index in range(2 * MAX_MESSAGES):
        still.put(0, index, size=1)
    assert still.find(0, 0.0) == 2 * MAX_MESSAGES - 1


def test_a_clock_that_jumped_back_begins_anew() -> None:
    messages = buffer(100_000, 100_033, 5)
    assert messages.find(100_000 * MS, 1.0) is None and messages.find(5 * MS, 0.0) == "at 5"
