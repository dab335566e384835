"""The whole demo as started by a user: three processes over DDS with the shipped bag."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groma_ros.client.demo.bag import read_bag
from groma_ros.client.demo.processes import Child
from groma_ros.grounding.goals import read_goals
from tests.pictures import read_picture

DEMO = Path(__file__).resolve().parents[3] / "demo"
SECONDS = 240.0


def demo(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the demonstration; its children are ended with it when it takes too
    long."""
    command = [sys.executable, "-m", "groma_ros.client.demo", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )
    return done.returncode, done.stdout, done.stderr


def running(word: str) -> list[str]:
    """Command lines of living processes that contain a word."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if word in line]


def test_the_bag_is_played_answered_and_written_down(tmp_path: Path, small_model: Path) -> None:
    out = tmp_path / "out"
    status, stdout, stderr = demo("--model", small_model, "--rate", 3, "--out", out)
    assert status == 0, stdout + stderr
    figures = json.loads((out / "demo.json").read_text())
    assert set(figures) == {"frames", "accuracy", "received", "answered", "dropped", "seconds"}
    bag = read_bag(DEMO / "tabletop.mcap")
    (camera,) = bag.topics_of("sensor_msgs/msg/CompressedImage")
    sent = [item.time for item in bag.records if item.topic == camera]
    assert 0 < figures["answered"] == len(figures["frames"]) <= figures["received"] <= len(sent)
    assert figures["received"] == figures["answered"] + figures["dropped"]
    goals = [goal.text for goal in read_goals(DEMO / "goals.yaml")]
    assert all([item["goal"] for item in frame["groundings"]] == goals for frame in figures["frames"])
    assert {frame["stamp"] for frame in figures["frames"]} <= set(sent)
    assert 0 <= figures["accuracy"] <= 1 and 1.5 < figures["seconds"] < SECONDS
    written = read_bag(out / "demo.mcap")
    assert set(written.topics) == set(bag.topics) | {"/groma/detections", "/groma/groundings"}
    assert sum(item.topic == "/groma/groundings" for item in written.records) == figures["answered"]
    assert sum(item.topic == "/groma/detections" for item in written.records) == figures["answered"]
    assert sum(item.topic == camera for item in written.records) == len(sent)
    assert read_picture(out / "demo.png").shape[1] == 1280
    assert all(goal in stdout for goal in goals[:1]) and f"{figures['answered']} answered" in stdout
    assert running(str(out)) == running(str(small_model)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_process(tmp_path: Path, small_model: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    # A bag of its own, so that the player can be identified by its command line.
    bag = shutil.copy(DEMO / "tabletop.mcap", tmp_path / "bag.mcap")
    arguments = ["--model", str(small_model), "--out", str(out), "--bag", str(bag)]
    with Child("groma_ros.client.demo", arguments, tmp_path / "log.txt", {}) as child:
        end = time.monotonic() + SECONDS
        while not (out / "player.log").exists() and child.running and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)
        assert len(running(str(bag))) == 2
        assert child.interrupt(number, grace=30.0)[0] == 1
        assert child.last_line() == "demo: It was interrupted." and "Traceback" not in child.output()
    assert running(str(tmp_path)) == running(str(small_model)) == []


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    status, _, stderr = demo("--bag", "no/such.mcap", "--out", tmp_path)
    assert (status, stderr) == (1, "demo: The bag no/such.mcap does not exist.\n")
    status, _, stderr = demo("--model", "no/such/model", "--out", tmp_path)
    assert status == 1 and len(stderr.splitlines()) == 1
    assert "The node ended: groma_node: The model folder no/such/model does not exist" in stderr


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not here')")
    status, _, stderr = demo("--out", tmp_path, PYTHONPATH=str(tmp_path))
    assert (status, stderr) == (
        1,
        "demo: The package rich cannot be imported (not here); run `make setup`, or install it.\n",
    )
