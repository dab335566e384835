"""The executable: how it starts, refuses to start, is managed, and ends."""

from __future__ import annotations

import re
import shutil
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray

from groma_ros.client.demo.processes import Child
from tests.node.robot import Robot, start_node
from tests.runtime.endless import endless

START_SECONDS = 120.0
ENDING_SECONDS = 8.0
"""Half a second where nothing else runs, and 2 s is the promise; the rest is for a machine busy with other
tests."""
TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


def ended(domain: int, log: Path, parameters: dict[str, Any]) -> tuple[int, str]:
    """Exit status and output of a node that is expected to exit."""
    with ExitStack() as stack:
        child = start_node(stack, domain, log, parameters)
        status = child.wait(START_SECONDS)
        return status, child.output()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"model": "no/such/folder"}, r"The model folder no/such/folder does not exist"),
        ({"min_presence": 1.5}, r"min_presence"),
        ({"max_goals": "many"}, r"max_goals"),
        ({"image_transport": "theora"}, r"image_transport is 'theora'; it must be one of raw, compressed\."),
    ],
)
def test_a_wrong_start_ends_with_one_sentence(
    domain: int, tmp_path: Path, parameters: dict[str, Any], sentence: str
) -> None:
    status, output = ended(domain, tmp_path / "log.txt", parameters)
    own = [line for line in output.splitlines() if line.startswith("groma_node: ")]
    assert status == 1 and len(own) == 1 and re.search(sentence, own[0]) and "Traceback" not in output


def test_ros_arguments_that_cannot_be_read_are_one_sentence(domain: int, tmp_path: Path) -> None:
    with ExitStack() as stack:
        arguments = ["--ros-args", "--params-file", str(tmp_path / "none.yaml")]
        child = stack.enter_context(
            Child("groma_ros.node.main", arguments, tmp_path / "log.txt", {"ROS_DOMAIN_ID": str(domain)})
        )
        status, output = child.wait(START_SECONDS), child.output()
    own = [line for line in output.splitlines() if line.startswith("groma_node: ")]
    assert (
        status == 1
        and len(own) == 1
        and re.search(r"arguments cannot be read: .*none\.yaml", own[0])
        and "Traceback" not in output
    )


def test_without_ros_it_says_so(domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError('No module named rclpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, output = ended(domain, tmp_path / "log.txt", {})
    assert status == 1 and output.startswith(
        "groma_node: No module named rclpy; run `make setup`, or source your ROS 2"
    )


def test_without_the_models_runtime_it_says_so(
    domain: int, tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, output = ended(domain, tmp_path / "log.txt", {"model": small_model})
    assert (
        status == 1
        and "groma_node: The model needs the Python package torch, which is not installed" in output
    )


def test_a_damaged_model_and_a_goal_that_cannot_be_asked_end_with_one_sentence(
    domain: int, tmp_path: Path, small_model: Path
) -> None:
    damaged = shutil.copytree(small_model, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, output = ended(domain, tmp_path / "log.txt", {"model": damaged})
    assert status == 1 and "model.safetensors is truncated" in output and "Traceback" not in output
    status, output = ended(domain, tmp_path / "log.txt", {"model": small_model, "goals": f"['{'x' * 2000}']"})
    assert status == 1 and "groma_node: The goal has 2000 characters" in output and "Traceback" not in output


def test_a_quality_of_service_that_does_not_exist_is_one_sentence(
    domain: int, tmp_path: Path, small_model: Path
) -> None:
    parameters = {"model": small_model, "qos_overrides./image.subscription.reliability": "perfect"}
    status, output = ended(domain, tmp_path / "log.txt", parameters)
    own = [line for line in output.splitlines() if line.startswith("groma_node: ")]
    assert status == 1 and len(own) == 1 and "reliability" in own[0] and "Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_while_frames_come(
    robot: Robot, tmp_path: Path, small_model: Path, picture: NDArray[Any], number: signal.Signals
) -> None:
    with ExitStack() as stack:
        parameters = {"model": small_model, "goals": "['the mug']", "min_presence": 0.0}
        child = start_node(stack, robot.domain, tmp_path / "log.txt", parameters)
        robot.meet(child)
        robot.ask(robot.image(picture))
        for _ in range(5):
            robot.images.publish(robot.image(picture))
        status, seconds = child.interrupt(number)
        output = child.output()
        assert (
            status == 0 and "Traceback" not in output and "Error" not in output and "abandoned" not in output
        )
        assert seconds < ENDING_SECONDS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("library", ["_rclpy_pybind11", "librmw_fastrtps", "onnxruntime_pybind11"])
def test_a_signal_ends_it_while_it_starts(
    domain: int, tmp_path: Path, library: str, number: signal.Signals
) -> None:
    """During imports, while it joins the graph, while the model is loaded."""
    with ExitStack() as stack:
        child = start_node(stack, domain, tmp_path / "log.txt", {})
        begin = time.monotonic()
        while library not in Path(f"/proc/{child.pid}/maps").read_text():
            assert child.running and time.monotonic() - begin < START_SECONDS, child.output()
            time.sleep(0.02)
        status, seconds = child.interrupt(number)
        # The other status is that of a program that was ended before it could handle signals.
        early = 130 if number == signal.SIGINT else -signal.SIGTERM
        assert status in (0, early) and seconds < ENDING_SECONDS, child.output()
        assert "Traceback" not in child.output() and "terminate called" not in child.output()


def children(pid: int) -> dict[int, str]:
    """The command lines of the processes that a process started, by their numbers."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            with suppress(OSError):  # it has ended meanwhile
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_model_that_never_finishes_loading_holds_nothing_up(
    domain: int, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = endless(tmp_path / "endless", TINY)
    with ExitStack() as stack:
        child = start_node(stack, domain, tmp_path / "log.txt", {"model": bundle.directory})
        trial: list[int] = []
        begin = time.monotonic()
        while not trial and child.running and time.monotonic() - begin < START_SECONDS:
            trial = [key for key, line in children(child.pid).items() if "trial_run" in line]
            time.sleep(0.1)
        assert trial, child.output()
        status, seconds = child.interrupt(number)
        assert status == (0 if number == signal.SIGTERM else -number) and seconds < ENDING_SECONDS
        begin = time.monotonic()
        # It may still be importing, and then sees that it is alone when it is done.
        while Path(f"/proc/{trial[0]}").exists() and time.monotonic() - begin < 60:
            time.sleep(0.1)
        assert not Path(f"/proc/{trial[0]}").exists()


def change(robot: Robot, label: str) -> bool:
    request = ChangeState.Request()
    request.transition.label = label
    return bool(robot.call(ChangeState, "groma/change_state", request).success)


def state(robot: Robot) -> str:
    return str(robot.call(GetState, "groma/get_state", GetState.Request()).current_state.label)


def test_a_manager_takes_it_through_its_states(
    robot: Robot, tmp_path: Path, small_model: Path, picture: NDArray[Any]
) -> None:
    with ExitStack() as stack:
        parameters = {"model": small_model, "goals": "['the mug']", "min_presence": 0.0, "autostart": False}
        child = start_node(stack, robot.domain, tmp_path / "log.txt", parameters)
        assert state(robot) == "unconfigured"
        for _ in range(2):
            assert change(robot, "configure") and state(robot) == "inactive"
            assert robot.images.get_subscription_count() == 0
            for _ in range(2):
                assert change(robot, "activate") and state(robot) == "active"
                robot.meet(child)
                assert robot.ask(robot.image(picture))[0].detections
                assert change(robot, "deactivate") and state(robot) == "inactive"
                robot.until(lambda: robot.images.get_subscription_count() == 0, "the end of listening")
            assert change(robot, "cleanup") and state(robot) == "unconfigured"
        assert change(robot, "shutdown") and state(robot) == "finalized"
        assert child.running and child.interrupt()[0] == 0 and "Traceback" not in child.output()


def test_a_configuration_that_failed_can_be_tried_again(
    robot: Robot, tmp_path: Path, small_model: Path
) -> None:
    folder = tmp_path / "model"
    with ExitStack() as stack:
        child = start_node(stack, robot.domain, tmp_path / "log.txt", {"model": folder, "autostart": False})
        assert not change(robot, "configure") and state(robot) == "unconfigured"
        assert "does not exist" in child.output()
        shutil.copytree(small_model, folder)
        assert change(robot, "configure") and state(robot) == "inactive"
