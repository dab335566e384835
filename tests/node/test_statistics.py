"""Counts by fate and cause, medians by stage."""

from __future__ import annotations

import threading

from groma_ros.node.statistics import WINDOW, Snapshot, Statistics, total


def test_counts_causes_and_medians() -> None:
    statistics = Statistics()
    for _ in range(5):
        statistics.received()
    statistics.dropped("newer image")
    statistics.skipped()
    statistics.refused("image", "step")
    statistics.refused("image", "step")
    statistics.refused("goal", "text")
    for seconds in (0.010, 0.030, 0.020):
        statistics.answered({"ground": seconds, "total": 2 * seconds})
    counts = statistics.snapshot()
    assert (counts.received, counts.answered, counts.dropped, counts.skipped) == (5, 3, 1, 1)
    assert (
        counts.drops == {"newer image": 1} and counts.refusals("image") == 2 and counts.refusals("goal") == 1
    )
    assert counts.refused == {"image: step": 2, "goal: text": 1}
    assert counts.median_ms == {"ground": 20.0, "total": 40.0}


def test_medians_forget_what_is_long_past() -> None:
    statistics = Statistics()
    for number in range(3 * WINDOW):
        statistics.answered({"total": 1.0 if number < 2 * WINDOW else 0.001})
    assert statistics.snapshot().median_ms == {"total": 1.0} and statistics.snapshot().answered == 3 * WINDOW


def test_nothing_counted_is_nothing() -> None:
    assert Statistics().snapshot() == Snapshot()


def test_threads_do_not_lose_counts() -> None:
    statistics = Statistics()

    def count() -> None:
        for _ in range(2000):
            statistics.received()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statistics.snapshot().received == 8000


def test_the_counts_of_cameras_add_up_and_their_medians_are_over_all() -> None:
    parts = [Statistics(), Statistics(), Statistics()]
    for number, part in enumerate(parts):
        part.received()
        part.dropped("newer image" if number else "stopped")
        part.took({"decode": 0.001 * (number + 1)})
    counts = total(parts)
    assert (counts.received, counts.dropped, counts.drops) == (3, 3, {"stopped": 1, "newer image": 2})
    assert counts.median_ms == {"decode": 2.0}
