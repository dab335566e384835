"""Scenes of robosuite and Miniworld, rendered in their own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import DatasetError, Settings, load_dataset
from groma_ros.simulation.world_objects import MIN_AREA, MIN_VISIBLE, WORLD_KINDS
from tests.pictures import read_picture
from tests.simulators import need_simulators


@pytest.mark.parametrize("world", other_worlds.WORLDS)
def test_scenes_of_another_simulator(world: str, tmp_path: Path) -> None:
    need_simulators()
    options = ["--seed=4", "--count=3", f"--out={tmp_path}", f"--world={world}", "--jobs=1", "--width=320"]
    command = [sys.executable, "-m", "groma_ros.cli", "scenes", *options, "--height=240", "--depth"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stderr
    records = load_dataset(tmp_path)
    assert len(records) == 3
    assert json.loads((tmp_path / "records" / "000000.json").read_text())["world"] == world
    for record in records:
        picture = read_picture(record.image)
        depth = read_picture(tmp_path / "depth" / f"{record.image.stem}.png", cv2.IMREAD_UNCHANGED)
        assert picture.shape == (240, 320, 3) and depth.shape == (240, 320)
        assert picture.std() > 5
        from_base = world == "miniworld-base"
        assert from_base or len(record.objects) >= 3
        assert {goal.kind for goal in record.goals} >= {"absent"}
        for item in record.objects:
            assert item.kind in WORLD_KINDS
            assert item.area >= MIN_AREA * 320 * 240 and item.visible >= (0.4 if from_base else MIN_VISIBLE)
            if not from_base:
                assert min(item.box[:2]) > 0 and item.box[2] < 320 and item.box[3] < 240
            x1, y1, x2, y2 = (int(value) for value in item.box)
            near = np.median(depth[(y1 + y2) // 2 - 2 : (y1 + y2) // 2 + 3, x1:x2]) / 1000
            assert item.box_3d is not None
            reach = float(np.hypot(*item.box_3d.size[:2])) / 2
            # Something of the object, or what stands before or behind it, is where the box in space is.
            assert near < item.box_3d.centre[2] + reach + 3
        assert all(index < len(record.objects) for goal in record.goals for index in goal.targets)


SLEEPER = """
import os, time
from pathlib import Path
Path("begun.tmp").write_text(str(os.getpid()))
os.rename("begun.tmp", "begun")
time.sleep(600)
"""
PARENT = """
import sys
from pathlib import Path
from groma_ros.simulation import other_worlds
other_worlds.simulator_python = lambda: Path(sys.executable)
other_worlds.run_elsewhere("sleeper", [])
"""


def test_a_simulator_ends_with_the_process_that_started_it_even_if_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(other_worlds.ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, env=environment)
    _until((tmp_path / "begun").exists)
    child = int((tmp_path / "begun").read_text())
    parent.kill()
    parent.wait()
    _until(lambda: not _runs(child))


def _runs(process: int) -> bool:
    """Whether a process exists and is not merely waiting for its parent to take note of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


HAMMERS = """
from groma_ros.simulation.robosuite_table import Item, make_object, prepare
prepare()
for name in ("hammer_0", "hammer_1"):
    thing = make_object(Item(name, "hammer", (0.55,) * 3))
    print(thing.handle_radius, thing.handle_length, thing.head_halfsize)
"""


def test_the_proportions_of_a_hammer_are_the_same_in_every_process() -> None:
    need_simulators()
    command = [str(other_worlds.simulator_python()), "-c", HAMMERS]
    environment = other_worlds.simulator_environment()
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first == second and len(first) == 6
    assert first[:3] != first[3:]


def test_settings_that_these_worlds_do_not_have() -> None:
    with pytest.raises(DatasetError, match="neither --aspect nor --supersample"):
        Settings(0, world="robosuite", supersample=2).renderer()


def test_missing_simulator_error_names_the_command_to_run() -> None:
    with pytest.raises(other_worlds.SimulatorUnavailable, match="make setup-sim"):
        other_worlds.make_renderer("robosuite", 320, 240)
