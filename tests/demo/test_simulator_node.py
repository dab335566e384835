"""Requests to a simulator, the film of an episode, and names that rclpy's Node uses itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node

from demo.simulator_node import SimulatorNode, serve
from tests.domains import own_domain


class Still(SimulatorNode):
    """A simulator without ROS."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self._film: list[Any] = []
        self._started = 1.0

    @property
    def seconds(self) -> float:
        return 2.5

    @property
    def has_episode(self) -> bool:
        return self.seed is not None

    def reset(self, seed: int) -> dict[str, Any]:
        self.seed = seed
        return {"time": self.now}

    def finish(self, film: str) -> dict[str, Any]:
        self._film.append(np.full((4, 4, 3), (255, 0, 0), np.uint8))
        return {"saved": str(self.save_film(film))}

    def advance(self) -> None:
        raise AssertionError("no step is needed here")

    def wall_step(self) -> float:
        return 0.0


def test_requests(tmp_path: Path) -> None:
    node = Still()
    with pytest.raises(ValueError, match="No episode"):
        node.answer_request({"do": "finish"})
    assert node.answer_request({"do": "reset", "seed": "7"}) == {"time": 3.5} and node.seed == 7
    with pytest.raises(ValueError, match="no request 'dance'"):
        node.answer_request({"do": "dance"})
    assert node.answer_request({"do": "finish"}) == {"saved": "None"}
    folder = tmp_path / "film"
    assert node.answer_request({"do": "finish", "film": str(folder)}) == {"saved": str(folder)}
    assert sorted(path.name for path in folder.iterdir()) == ["000.jpg", "001.jpg"]


def test_no_name_of_rclpy_is_replaced() -> None:
    own = {name for name in vars(SimulatorNode) if not name.startswith("__") and name != "_abc_impl"}
    assert own & set(dir(Node)) == set()


class Idle(Still):
    """A simulator with ROS, whose steps do nothing."""

    def __init__(self) -> None:
        SimulatorNode.__init__(self, "idle", "camera")
        self.seed = None

    def advance(self) -> None:
        pass

    def wall_step(self) -> float:
        return 0.05


def test_a_terminated_simulator_ends_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.demo.test_simulator_node"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(own_domain())},
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write('{"do": "reset", "seed": 7}\n')
        process.stdin.flush()
        assert process.stdout.readline() == '{"time": 3.5}\n'
        process.terminate()
        _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (0, "")


if __name__ == "__main__":
    serve(Idle)
