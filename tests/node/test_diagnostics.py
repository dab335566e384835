"""Keys and values of /diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.time import Time

from groma_ros.grounding.familiarity import Familiarity
from groma_ros.node.diagnostics import (
    MAX_WARNED,
    UNUSUAL_REPORTS,
    Meter,
    Rates,
    Reports,
    count_values,
    memory_mb,
    status_message,
)
from groma_ros.node.goal_set import GoalSet, NodeConfig
from groma_ros.node.parameters import Parameters
from groma_ros.node.pipeline import Camera
from groma_ros.node.statistics import Snapshot, Statistics
from groma_ros.types import Goal, Scene

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


class ReportBench:
    """The reports of a node with one camera, without ROS. Its model knows the words "the" and "mug"."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.published: list[DiagnosticArray] = []
        node: Any = SimpleNamespace(
            get_logger=lambda: SimpleNamespace(warning=self.warnings.append),
            get_fully_qualified_name=lambda: "/groma",
            create_publisher=lambda *_, **__: SimpleNamespace(publish=self.published.append),
        )
        self._reports, self._statistics = Reports(node), Statistics()
        self._camera: Any = SimpleNamespace(
            name="", statistics=self._statistics, inputs=None, view=None, age=None, published=None
        )
        usual = np.random.default_rng(3).normal(size=(500, 40)).astype(np.float32)
        self._mean = usual.mean(0)
        self._reports.loaded(None, Familiarity.fit({"table": usual}, frozenset({"the", "mug"})))

    def perceive(self, offset: float, stamp: int = 0) -> None:
        """Perceive a picture that is so far from the usual ones."""
        none = np.zeros((0, 40), np.float32)
        tokens = (self._mean + np.float32(offset))[None]
        scene = Scene(none[:, :4], none[:, 0], tokens, none, None, 10, 10, stamp)
        self._camera.view = SimpleNamespace(scene=scene)
        self._statistics.perceived()

    def silent(self, sentence: str) -> None:
        """Let the camera send nothing, for a reason."""
        self._camera.inputs = SimpleNamespace(silence=sentence, status=dict)

    def report(self, goals: Sequence[str] = (), count: int = 1) -> dict[str, str]:
        """The values of the next report of a node with so many cameras, all this one."""
        cameras: list[Camera] = [self._camera] * count
        config = NodeConfig(GoalSet(tuple(map(Goal, goals))), Parameters())
        self._reports.publish(Time(), config, cameras, Statistics(), 0, "")
        return {item.key: item.value for item in self.published[-1].status[0].values}


def test_the_log_warns_once_of_pictures_that_stay_unusual_whatever_their_stamps() -> None:
    bench = ReportBench()
    assert "unusual picture" not in bench.report()
    bench.perceive(9)
    for _ in range(3 * UNUSUAL_REPORTS):  # a camera that stopped
        assert float(bench.report()["unusual picture"]) > 1
    assert bench.warnings == []
    bench.perceive(0)
    assert float(bench.report()["unusual picture"]) < 1
    for number in range(3 * UNUSUAL_REPORTS):
        bench.perceive(9)  # stamp 0, as of drivers that set none
        bench.report()
        assert len(bench.warnings) == (number >= UNUSUAL_REPORTS - 1)
    assert bench.warnings[0].startswith("The picture is unlike the pictures that the model learned from")


def test_the_log_warns_of_the_words_of_each_goal_once() -> None:
    bench = ReportBench()
    goals = ["the mug", "the anvil", "the anvil"]
    assert bench.report(goals)["unknown words"] == "anvil"
    bench.report(goals)
    bench.report(["the anvil"])
    said = "The model never learned the word {0} of the goal 'the {0}'."
    assert bench.warnings == [said.format("anvil")]
    # Goals that change without end are not all remembered, but those that stand are.
    bench.report(["the stethoscope"])
    assert bench.warnings == [said.format("anvil"), said.format("stethoscope")]
    for number in range(MAX_WARNED):
        bench.report(["the anvil", f"the mug {number}"])
    assert len(bench.warnings) == 2
    bench.report(["the anvil", "the stethoscope"])
    assert bench.warnings[2:] == [said.format("stethoscope")]


@pytest.mark.parametrize("count", [1, 2])
def test_a_silent_camera_is_a_warning_with_its_reason(count: int) -> None:
    bench = ReportBench()
    for sentence in ("", "No image came on /image for 7 s: nobody publishes it."):
        bench.silent(sentence)
        bench.report(["the mug"], count)
        first, *cameras = bench.published[-1].status
        wanted = DiagnosticStatus.WARN if sentence else DiagnosticStatus.OK
        assert [item.level for item in (first, *cameras)] == [wanted] * (1 + len(cameras))
        summary = "2 of 2 cameras send no image" if count == 2 else sentence
        assert first.message == (summary if sentence else "answers 1 goals")
        assert [item.message for item in cameras] == [sentence or "answers"] * (count if count > 1 else 0)
