"""A backend that fails in the middle, over DDS: ONNX Runtime raises for one picture and for one goal, and the
node continues."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import GroundingArray
from groma_ros.types import Frame, Goal
from tests.node.robot import Robot, start_node
from tests.small import put_file

BRIGHT = 1.9
"""Of a white picture every normalised value is above it, of any other one the least is not."""
FAR = 150
"""A position that only a very long goal has."""
LONG = "the red mug " * 40


def failing(graph: bytes, name: str, least: str, limit: NDArray[Any]) -> bytes:
    """A graph that fails where a reduction (`least`) of an input passes the limit: an index is then outside
    its table of one."""
    model = onnx.load_from_string(graph)
    kind = next(item for item in model.graph.input if item.name == name).type.tensor_type.elem_type
    for node in model.graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = "checked"
    zero = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(kind)), "check_table")
    model.graph.initializer.extend([zero, numpy_helper.from_array(limit, "check_limit")])
    checks = [
        helper.make_node(least, [name], ["check_value"], keepdims=0),
        helper.make_node("Greater", ["check_value", "check_limit"], ["check_above"]),
        helper.make_node("Cast", ["check_above"], ["check_index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["check_table", "check_index"], ["check_zero"]),
        helper.make_node("Add", [name, "check_zero"], ["checked"]),
    ]
    for place, node in enumerate(checks):
        model.graph.node.insert(place, node)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def brittle(graph_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graphs cannot compute a white picture, nor a goal of hundreds of tokens."""
    folder = Path(shutil.copytree(graph_model, tmp_path_factory.mktemp("brittle") / "model"))
    vision, language = folder / "perceive.onnx", folder / "language.onnx"
    put_file(
        folder, vision.name, failing(vision.read_bytes(), "pixels", "ReduceMin", np.array(BRIGHT, np.float32))
    )
    put_file(
        folder,
        language.name,
        failing(language.read_bytes(), "positions", "ReduceMax", np.array(FAR, np.int64)),
    )
    return folder


@pytest.fixture(scope="module")
def node(brittle: Path, domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("failures") / "log.txt"
    parameters = {
        "model": brittle,
        "backend": "onnx",
        "threads": 1,
        "min_presence": 0.0,
        "answer_wait": 30.0,
        "carry": False,
    }
    with ExitStack() as stack:
        yield start_node(stack, domain, log, parameters)


@pytest.fixture
def met(robot: Robot, node: Child) -> Robot:
    """The robot, connected to the node."""
    robot.meet(node)
    return robot


def test_a_picture_that_the_back_end_cannot_compute_is_counted_and_the_next_is_answered(
    met: Robot, node: Child, graph_model: Path, picture: NDArray[Any]
) -> None:
    met.send_goals("the mug")
    met.ask(met.image(picture))
    before, white = met.count("refused image: failure"), met.image(np.full_like(picture, 255))
    met.repeat(
        lambda: met.images.publish(white), lambda: met.count("refused image: failure") > before, "the refusal"
    )
    met.until(lambda: "A frame could not be answered:" in node.output(), "the warning")
    (answer,) = met.ask(met.image(picture))[1].groundings
    (wanted,) = Grounder.load(graph_model, min_presence=0.0, backend="onnx", threads=1).ground(
        Frame(picture), [Goal("the mug")]
    )
    assert answer.present == pytest.approx(wanted.present, abs=1e-5)
    assert all(item.header.stamp != white.header.stamp for item in met.groundings), (
        "nothing is said of what was not seen"
    )


def test_a_goal_that_the_back_end_cannot_compute_is_counted_and_the_next_is_answered(
    met: Robot, node: Child, picture: NDArray[Any]
) -> None:
    met.send_goals(LONG)
    before, image = met.count("refused answer: failure"), met.image(picture)

    def outputs() -> list[GroundingArray]:
        return [item for item in met.groundings if item.header.stamp == image.header.stamp]

    met.repeat(
        lambda: met.images.publish(image),
        lambda: met.count("refused answer: failure") > before and outputs(),
        "the refusal",
    )
    assert all(one.status == one.PENDING for item in outputs() for one in item.groundings)
    met.send_goals("the mug")
    assert [item.goal for item in met.ask(met.image(picture))[1].groundings] == ["the mug"]
    assert node.running and "Traceback" not in node.output()
