"""A bag through the real node over DDS: answers, carried boxes and ids agree with the offline run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groma_ros.client.live_replay import play
from groma_ros.io.bags import RAW
from groma_ros.replay.compare import Tolerances, compare
from groma_ros.replay.plan import DETECTIONS, ModelSettings, ReplayPlan, Task
from groma_ros.replay.records import FrameRecord, read_records, without_places
from groma_ros.replay.result import Outcome
from groma_ros.replay.run import LOG, replay
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.types import Goal
from tests.io.test_bags import DEMO, image, write
from tests.replay.conftest import TENTH
from tests.small import blocks

CLOSE = Tolerances(iou=0.98, score=0.02, ids=True)
ENGINE = ModelSettings(shipped_model(), RuntimeOptions(backend="onnx", threads=1))
GOALS = (
    Goal("the ball"),
    Goal("both blue objects", "all", 0.3),
    Goal("red cone"),
    Goal("all the objects that are not green", "all"),
)


def run(
    bag: Path, out: Path, plan: ReplayPlan, expect: Path | None = None
) -> tuple[Outcome, list[FrameRecord]]:
    outcome = replay(Task("bag", bag, out, expect), plan, None if plan.live else plan.engine.load())
    return outcome, read_records(out / DETECTIONS)


def test_without_drops_everything_agrees(tmp_path: Path) -> None:
    """Asked once a second of the recording, so that most boxes are carried; ids are equal too."""
    plan = ReplayPlan(GOALS, ENGINE, every=4, tracking=TrackingConfig(answer_period=1.0))
    _, wanted = run(DEMO, tmp_path / "offline", plan)
    outcome, found = run(DEMO, tmp_path / "live", replace(plan, play=play, rate=0.0), tmp_path / "offline")
    assert (
        [record.number for record in found] == [record.number for record in wanted] == list(range(0, 60, 4))
    )
    assert [record.asked for record in found] == [record.asked for record in wanted]
    assert 0 < sum(record.asked for record in wanted) < len(wanted)
    assert sum(len(item.detections) for record in found for item in record.goals) > len(found)
    assert compare([without_places(record) for record in wanted], found, CLOSE) == []
    assert [record.answered for record in found] == [record.answered for record in wanted]
    assert (outcome.status, outcome.summary["changes"], outcome.summary["backend"]) == ("same", 0, "onnx")
    assert "Active; subscribed to /camera/image/compressed" in (tmp_path / "live" / LOG).read_text()


def test_live_replay_stays_in_its_domain_and_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node runs with the domain of ROS_DOMAIN_ID or of the plan, and discovers on this machine only."""
    seen: list[dict[str, str]] = []

    class Stopped(Exception):
        pass

    def child(module: str, arguments: object, log: Path, environment: dict[str, str]) -> None:
        seen.append({**os.environ, **environment})
        raise Stopped

    monkeypatch.setattr("groma_ros.client.live_replay.Child", child)
    monkeypatch.setenv("ROS_DOMAIN_ID", "87")
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"):
        monkeypatch.setenv(name, "")
    elsewhere = ("ROS_DISCOVERY_SERVER", "FASTDDS_ENVIRONMENT_FILE", "CYCLONEDDS_URI")
    for name in elsewhere:
        monkeypatch.setenv(name, "192.0.2.1:11811")
    plan = ReplayPlan(GOALS, ENGINE, play=play)
    for domain in (None, 88):
        with pytest.raises(Stopped):
            run(DEMO, tmp_path / "out", replace(plan, domain=domain))
    assert [entry["ROS_DOMAIN_ID"] for entry in seen] == ["87", "88"]
    assert {entry["ROS_AUTOMATIC_DISCOVERY_RANGE"] for entry in seen} == {"LOCALHOST"}
    assert {entry["ROS_LOCALHOST_ONLY"] for entry in seen} == {"1"}
    assert not any(name in entry for entry in seen for name in elsewhere)
    monkeypatch.setenv("ROS_DOMAIN_ID", "many")
    with pytest.raises(ValueError, match="ROS_DOMAIN_ID is 'many'; it must be a number from 0 to 232"):
        run(DEMO, tmp_path / "out", plan)


def test_at_the_speed_of_the_recording_what_was_answered_agrees(tmp_path: Path) -> None:
    """A busy machine drops images; those the language model answered on are answered as offline, ids
    aside."""
    plan = ReplayPlan(GOALS, ENGINE)
    run(DEMO, tmp_path / "offline", plan)
    outcome, found = run(DEMO, tmp_path / "live", replace(plan, play=play, rate=2.0), tmp_path / "offline")
    assert outcome.status == "same" and any("live: compared on the" in note for note in outcome.suite.notes)
    assert sum(record.asked for record in found) >= 1
    assert [record.number for record in found] == sorted(record.number for record in found)


def test_raw_images_that_change_and_jump(tmp_path: Path) -> None:
    """Stamps repeat and go back, a picture of another size comes, and two images are refused: nothing hangs
    and nothing differs."""
    shown = [blocks(seed, 48, 64) for seed in (1, 1, 2, 3)]
    shown[2] = np.ascontiguousarray(np.kron(shown[2], np.ones((2, 2, 1), np.uint8)))
    stamps = [10 * TENTH, 11 * TENTH, 11 * TENTH, TENTH]
    messages = [
        ("/eye/image", RAW, TENTH * (place + 1), image(stamps[place], rgb)) for place, rgb in enumerate(shown)
    ]
    messages.insert(1, ("/eye/image", RAW, TENTH + 1, image(3, shown[0], "sixels")))
    messages.insert(3, ("/eye/image", RAW, 2 * TENTH + 1, image(4, np.zeros((1, 1, 3), np.uint8))))
    bag = write(tmp_path / "odd", messages, StoragePlugin.MCAP)
    plan = ReplayPlan((Goal("object"),), replace(ENGINE, min_presence=0.0))
    _, wanted = run(bag, tmp_path / "offline", plan)
    _, found = run(bag, tmp_path / "live", replace(plan, play=play, rate=0.0))
    assert [record.refused for record in wanted] == ["", "encoding", "", "content", "", ""]
    assert [record.number for record in found] == [0, 2, 4, 5]
    assert compare([record for record in wanted if not record.refused], found, CLOSE) == []


def test_goals_the_node_refuses_and_a_model_it_cannot_load(tmp_path: Path) -> None:
    plan = ReplayPlan((Goal("why?", "chat"),), ENGINE, play=play, rate=0.0)
    with pytest.raises(
        ValueError,
        match="The node refused the goals: .* is of kind chat, whose answer is words; it cannot stand",
    ):
        run(DEMO, tmp_path / "out", plan)
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in ENGINE.model.iterdir():
        (torn / path.name).symlink_to(path)
    data = bytearray((ENGINE.model / "language.onnx").read_bytes())
    data[1000] ^= 1
    (torn / "language.onnx").unlink()
    (torn / "language.onnx").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="The node ended: groma_node: .*language.onnx was altered"):
        run(DEMO, tmp_path / "out", replace(plan, engine=replace(ENGINE, model=torn)))
