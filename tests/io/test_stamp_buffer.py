"""Which depth belongs to which image."""

from __future__ import annotations

import threading
import time

import pytest

from groma_ros.io.stamp_buffer import DEPTH, StampBuffer

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


def test_only_the_newest_are_kept_and_the_last_is_known() -> None:
    messages = buffer(*range(2 * DEPTH))
    assert messages.find(0, 0.001) is None and messages.find(DEPTH * MS, 0.0) == f"at {DEPTH}"
    assert messages.latest() == f"at {2 * DEPTH - 1}"
    messages.clear()
    assert messages.latest() is None
