"""What /diagnostics says, by key and value."""

from __future__ import annotations

import pytest

from groma_ros.node.diagnostics import Meter, Rates, count_values, memory_mb, status_message
from groma_ros.node.statistics import Snapshot

COUNTS = Snapshot(
    9,
    3,
    2,
    1,
    4,
    {"newer image": 2},
    {"image: step": 1, "image: empty": 1, "goal: text": 3},
    {"perceive": 12.345},
)


def test_every_count_has_a_key() -> None:
    assert count_values(COUNTS, Rates(30.04, 9.96)) == {
        "received": 9,
        "answered": 3,
        "carried": 2,
        "perceived": 4,
        "dropped": 2,
        "skipped": 1,
        "dropped newer image": 2,
        "refused images": 2,
        "refused answers": 0,
        "refused depths": 0,
        "refused goals": 3,
        "refused asks": 0,
        "refused grounds": 0,
        "refused goal: text": 3,
        "refused image: empty": 1,
        "refused image: step": 1,
        "rate in Hz": "30.0",
        "rate out Hz": "10.0",
        "median ms perceive": "12.3",
    }


def test_a_status_holds_texts() -> None:
    status = status_message(
        "groma: grounding", b"\x01", "answers 2 goals", "cpu", {"goals": 2, "backend": "onnx"}
    )
    assert (status.level, status.name, status.message, status.hardware_id) == (
        b"\x01",
        "groma: grounding",
        "answers 2 goals",
        "cpu",
    )
    assert {item.key: item.value for item in status.values} == {"goals": "2", "backend": "onnx"}


def test_rates_are_those_since_the_last_report() -> None:
    meter = Meter()
    assert meter.rates(10.0, Snapshot(100, 50)) == Rates()
    assert meter.rates(12.0, Snapshot(160, 70)) == Rates(30.0, 10.0)
    assert meter.rates(12.0, Snapshot(170, 80)) == Rates()
    assert meter.rates(13.0, Snapshot(180, 80)) == Rates(10.0, 0.0)


def test_memory_is_that_of_this_process() -> None:
    before = memory_mb()
    held = b"x" * (64 << 20)
    assert len(held) and memory_mb() - before == pytest.approx(64, abs=16)
