"""Episodes whose simulator, node or camera fails: what is counted, and what is restarted."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy

from demo import session as session_module
from demo.episodes import Row
from demo.session import LOST, CameraListener, Demonstration, Session, Setup
from demo.simulator_process import SimulatorError
from examples.ask import Outcome
from groma_ros.client.demo.processes import Child


class StandInSession:
    """A session without processes."""

    def __init__(self, *arguments: Any) -> None:
        self.recovered: list[int] = []
        self.ended: list[str] = []
        self.simulator = self  # requests are recorded here
        self.killed = 0
        self.started: list[int] = []
        self.hangs_at: list[int] = []

    def wait_until_ready(self) -> None:
        pass

    def recover(self, episode: int) -> list[str]:
        self.recovered.append(episode)
        ended, self.ended = self.ended, []
        return ended

    def kill(self) -> None:
        self.killed += 1
        self.ended.append("simulator")

    def start_episode(self, seed: int) -> dict[str, Any]:
        self.started.append(seed)
        if seed in self.hangs_at:
            self.hangs_at.remove(seed)
            raise SimulatorError("The simulator none did not answer 'reset' within 600 s.")
        targets = [] if seed == 12 else [0]
        return {"goal": {"text": f"thing {seed}", "kind": "attribute", "targets": targets}, "time": 1.0}


class Reaching(Demonstration):
    """Every episode succeeds except those of two seeds."""

    setup = Setup("reach", "none", "camera", "base", "above")
    wrong = "wrong_lift"

    def open(self, session: Session) -> None:
        self.session: Any = session

    def episode(
        self, session: Session, seed: int, episode: dict[str, Any], film: str
    ) -> tuple[Row, Outcome, Any]:
        if seed == 11:
            raise SimulatorError("The simulator none has ended: it said nothing.")
        if seed == 13:
            self.session.ended = ["node"]
            row = Row(seed, "thing 13", "attribute", True, "nothing lifted", "node lost")
            return (
                row,
                Outcome("node lost", "The search did not end within 30 s.", None),
                np.zeros((4, 4, 3), np.uint8),
            )
        present = bool(episode["goal"]["targets"])
        row = Row(seed, episode["goal"]["text"], "attribute", present, "success")
        return row, Outcome("", "Lifted and put down.", None), np.zeros((48, 64, 3), np.uint8)


def test_a_simulator_or_node_that_ends_is_counted_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_module, "Session", StandInSession)
    out = ["reach", "--seeds", "5", "--first-seed", "10", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", out)
    assert Reaching().main("") == 0
    document = json.loads((tmp_path / "reach.json").read_text())
    assert [row["outcome"] for row in document["rows"]] == [
        "success",
        LOST,
        "success",
        "nothing lifted",
        "success",
    ]
    assert document["rows"][1]["goal"] == "thing 11" and document["success"] == 2
    assert document["causes"] == {LOST: 1, "node lost": 1}
    printed = capsys.readouterr().out
    assert "11: 'thing 11': simulator ended (simulator ended): The simulator none has ended" in printed
    assert "Started again: simulator." in printed and "Started again: node." in printed


class HangingOnce(Reaching):
    """Its simulator does not answer at seed 32, and again at seed 34 after a restart."""

    def open(self, session: Session) -> None:
        super().open(session)
        self.session.hangs_at = [32, 34, 34]


def test_a_simulator_that_hangs_at_the_start_of_an_episode_is_killed_and_started_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_module, "Session", StandInSession)
    monkeypatch.setattr(sys, "argv", ["reach", "--seeds", "4", "--first-seed", "30", "--out", str(tmp_path)])
    demonstration = HangingOnce()
    assert demonstration.main("") == 0
    assert demonstration.session.started == [30, 31, 32, 32, 33] and demonstration.session.killed == 1
    assert demonstration.session.recovered == [0, 1, 2, 2, 3]
    document = json.loads((tmp_path / "reach.json").read_text())
    assert [row["outcome"] for row in document["rows"]] == ["success"] * 4
    said = "32: The simulator none did not answer 'reset' within 600 s. Started again: simulator."
    assert said in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["reach", "--seeds", "2", "--first-seed", "33", "--out", str(tmp_path)])
    demonstration = HangingOnce()
    assert demonstration.main("") == 1
    assert demonstration.session.started == [33, 34, 34] and demonstration.session.killed == 1
    assert "demo-reach: The simulator none did not answer 'reset'" in capsys.readouterr().err
    assert [row["seed"] for row in json.loads((tmp_path / "reach.json").read_text())["rows"]] == [33]


@pytest.mark.parametrize(("when", "done"), [("in an episode", [20]), ("while it closes", [20, 21])])
def test_a_terminated_run_writes_what_was_done_and_fails(
    when: str,
    done: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Terminated(Reaching):
        def episode(self, session: Session, seed: int, episode: dict[str, Any], film: str) -> Any:
            if seed == 21 and when == "in an episode":
                os.kill(os.getpid(), signal.SIGTERM)
            return super().episode(session, seed, episode, film)

    class TerminatedInClosing(StandInSession):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            arguments[-1].callback(os.kill, os.getpid(), signal.SIGTERM)

    kind = StandInSession if when == "in an episode" else TerminatedInClosing
    monkeypatch.setattr(session_module, "Session", kind)
    monkeypatch.setattr(sys, "argv", ["reach", "--seeds", "2", "--first-seed", "20", "--out", str(tmp_path)])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert Terminated().main("") == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert [row["seed"] for row in json.loads((tmp_path / "reach.json").read_text())["rows"]] == done
    assert "interrupted; what was done is written" in capsys.readouterr().err


def sleeper(seconds: float) -> list[str]:
    return [sys.executable, "-c", f"import time; time.sleep({seconds})"]


class Process:
    """A process in place of a child or the simulator."""

    def __init__(self, seconds: float) -> None:
        self.process = subprocess.Popen(sleeper(seconds))

    @property
    def running(self) -> bool:
        return self.process.poll() is None


def test_what_has_ended_is_started_again_once() -> None:
    session = Session.__new__(Session)  # without ROS
    made: list[str] = []

    def start(kind: str) -> Any:
        def begin(*names: str) -> Any:
            made.append("-".join([kind, *names]))
            return Process(60)

        return begin

    session._restarts = Counter()
    session.children = {"frames": Process(60), "node": Process(0)}  # type: ignore[dict-item]
    session.simulator = Process(0)  # type: ignore[assignment]
    session._start_child, session._start_simulator = start("child"), start("simulator")  # type: ignore[method-assign]
    session.camera = argparse.Namespace(stamp=44.0)  # type: ignore[assignment]
    session.wait_until_ready = lambda: made.append("waited")  # type: ignore[method-assign]
    ended: list[Any] = [session.children["node"], session.simulator]
    for process in ended:
        process.process.wait(20)
    alive: list[Any]
    try:
        assert session.recover(7) == ["node", "simulator"]
        assert made == ["child-node-node-7", "simulator-simulator-7", "waited"]
        assert session.camera.stamp == 0.0
        assert session.recover(8) == [] and len(made) == 3
        alive = [session.simulator]
        for process in alive:
            process.process.kill()
            process.process.wait()
        assert session.recover(7) == ["simulator"]  # again in the same episode: the first log is kept
        assert made[3] == "simulator-simulator-7-2"
    finally:
        alive = [*session.children.values(), session.simulator]
        for process in alive:
            process.process.kill()
            process.process.wait()


def test_a_camera_that_shows_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rclpy, "spin_once", lambda node, timeout_sec: None)
    camera = CameraListener.__new__(CameraListener)
    camera.stamp = 3.0
    with pytest.raises(SimulatorError, match="no new picture within 0 s"):
        camera.wait_until(lambda: False, 0.01)
    camera.wait_after(2.0)


def test_a_child_that_ends_while_starting_is_named(tmp_path: Path) -> None:
    session = Session.__new__(Session)
    with ExitStack() as stack:
        child = stack.enter_context(Child("json.tool", [str(tmp_path / "absent")], tmp_path / "log", {}))
        child.wait(30)
        session.children, session.finder = {"node": child}, "node"
        with pytest.raises(SimulatorError, match="json.tool ended: .*No such file"):
            session.wait_until_ready()
