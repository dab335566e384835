"""A node that is killed while it builds its GPU's engines: the next one builds them again, and answers."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal
from tests.node.robot import Robot, start_node


def start(stack: ExitStack, robot: Robot, folder: Path, stop: str, model: Path) -> Child:
    """The node on a machine with a GPU, its engines in the folder."""
    parameters = {
        "model": model,
        "backend": "tensorrt",
        "threads": 1,
        "min_presence": 0.0,
        "goals": "['the mug']",
    }
    return start_node(
        stack, robot.domain, folder / f"{stop}.txt", parameters, "tests.node.gpu_node", [str(folder), stop]
    )


def test_a_node_killed_during_a_build_leaves_nothing_in_the_way(
    robot: Robot, tmp_path: Path, graph_model: Path, picture: NDArray[Any]
) -> None:
    for stop in ("build", "engine", "note"):
        with ExitStack() as stack:
            child = start(stack, robot, tmp_path, stop, graph_model)

            def stopped() -> bool:
                assert child.running, f"the node ended: {child.output()[-2000:]}"  # noqa: B023
                return (tmp_path / "stopped").exists()

            robot.until(stopped, f"the stop at {stop}")
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait(30.0) == -signal.SIGKILL
            (tmp_path / "stopped").unlink()
    left = {path.suffix for path in (tmp_path / "groma_ros" / "engines").iterdir()}
    assert {".lock", ".engine", ".part"} <= left and ".json" not in left
    with ExitStack() as stack:
        child = start(stack, robot, tmp_path, "nowhere", graph_model)
        robot.meet(child)
        (answer,) = robot.ask(robot.image(picture))[1].groundings
        (wanted,) = Grounder.load(graph_model, min_presence=0.0, backend="onnx", threads=1).ground(
            Frame(picture), [Goal("the mug")]
        )
        assert answer.present == pytest.approx(wanted.present, abs=1e-5) and len(answer.detections) == len(
            wanted.detections
        )
        assert robot.count_now("refused images") == 0 and robot.diagnostics["backend"] == "tensorrt"
        assert child.interrupt()[0] == 0 and "Traceback" not in child.output()
    engines = tmp_path / "groma_ros" / "engines"
    assert [path for path in engines.iterdir() if path.suffix == ".part"] == []
    assert (
        {path.stem for path in engines.glob("*.engine")}
        == {path.stem for path in engines.glob("*.json")}
        != set()
    )
