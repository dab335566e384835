"""Effects of other programs on a node, and its output: clients and nodes that are killed, unwritable home
folders, texts with control characters."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray

from groma_ros.client.demo.processes import Child
from groma_ros.msg import Goal
from groma_ros.node.shared_memory import FOLDER, LOCK, SEGMENT
from groma_ros.srv import SetGoals
from tests.node.robot import STARTING, Robot, start_node

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
PARAMETERS = {"model": TINY, "backend": "onnx", "threads": 1, "min_presence": 0.0}
RAW = "the \x1b[31mred\x07 mug\n[ERROR] [0.0] [groma]: a line of its own\r"


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with ExitStack() as stack:
        yield start_node(stack, domain, tmp_path_factory.mktemp("surroundings") / "log.txt", PARAMETERS)


@pytest.fixture
def met(robot: Robot, node: Child) -> Robot:
    """The robot, connected to the node."""
    robot.meet(node)
    return robot


def test_the_goal_of_a_client_that_was_killed_ends(met: Robot, domain: int, tmp_path: Path) -> None:
    arguments = ["the red mug", "--timeout", "600"]
    with Child(
        "examples.ros_find", arguments, tmp_path / "log.txt", {"ROS_DOMAIN_ID": str(domain)}
    ) as client:
        met.until(lambda: met.count("questions") == 1, "the goal that waits for an image")
        os.kill(client.pid, signal.SIGKILL)
        # The middleware misses the client when its lease is over, 20 s by default.
        met.until(lambda: met.count("questions") == 0, "the end of the goal")
        assert client.wait(1.0) == -signal.SIGKILL


def written(child: Child) -> list[str]:
    """The lines of a log, every one of them the node's own, of printable characters alone."""
    lines = child.log.read_bytes().decode().split("\n")
    assert all(line.isprintable() and re.match(r"\[(INFO|WARN|ERROR)\] \[\d{9,}|$", line) for line in lines)
    return lines


def test_control_characters_and_newlines_are_escaped_in_the_log(
    met: Robot, node: Child, picture: NDArray[Any]
) -> None:
    def goal(number: int) -> Goal:
        return Goal(text=f"{RAW}{number}")

    start, changes, before = time.monotonic(), 20, len(written(node))
    for number in range(changes):
        assert met.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=[goal(number)])).success
    passed = time.monotonic() - start
    # The goal itself is asked and published as it was sent.
    assert met.ask(met.image(picture))[1].groundings[0].goal == goal(changes - 1).text.strip()
    met.spin(1.2)
    assert met.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=[goal(changes)])).success
    told = [line for line in written(node)[before - 1 :] if "Goals, set" in line]
    assert 2 <= len(told) <= passed + 4, "at most one a second"
    assert r"the \x1b[31mred\x07 mug\n[ERROR]" in told[-1]
    # Wrong in an image are its encoding and its frame.
    image = met.image(picture)
    image.encoding, image.header.frame_id = "rgb8\x1b[2J\n", "camera\x1b]0;title\x07"
    met.repeat(
        lambda: met.images.publish(image),
        lambda: any(r"rgb8\x1b[2J" in line for line in written(node)),
        "the refusal of the image",
    )
    # So is the label of a transition that there is none of.
    wrong = ChangeState.Request(transition=Transition(label=RAW))
    assert not met.call(ChangeState, "groma/change_state", wrong).success
    met.until(
        lambda: any(r"no transition 'the \x1b[31mred" in line for line in written(node)),
        "the refusal in the log",
    )
    # A service says the goal that it refuses.
    long = SetGoals.Request(goals=[Goal(text=RAW, kind="wrong\x1b[2J\n")])
    answer = met.call(SetGoals, "groma/set_goals", long)
    assert not answer.success and answer.message.isprintable()
    written(node)


def ended(
    domain: int, log: Path, parameters: dict[str, Any], environment: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """Exit status of a node that cannot start, and the lines that it wrote itself."""
    ros = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    variables = {"ROS_DOMAIN_ID": str(domain), **(environment or {})}
    with Child("groma_ros.node.main", ["--ros-args", *ros], log, variables) as child:
        status = child.wait(120.0)
        output = child.output()
    assert "Traceback" not in output
    return status, [line for line in output.splitlines() if line.startswith("groma_node: ")]


def test_the_name_of_a_camera_with_control_characters_is_one_sentence(domain: int, tmp_path: Path) -> None:
    status, lines = ended(domain, tmp_path / "log.txt", {"cameras": r'["left\e[2J\nright"]'})
    assert status == 1 and len(lines) == 1 and lines[0].isprintable()
    assert "cameras" in lines[0] and r"left\x1b[2J\nright" in lines[0]


def test_the_name_of_a_model_with_control_characters_is_escaped(domain: int, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    status, lines = ended(domain, log, {"model": r'"nowhere\e[2J\nelse"'})
    assert status == 1 and len(lines) == 1 and lines[0].isprintable()
    assert r"Loading the model nowhere\x1b[2J\nelse." in log.read_text() and "\x1b" not in log.read_text()


@pytest.mark.parametrize("level", ["foo", "groma:=loud"])
def test_a_log_level_that_ros_does_not_know_is_one_sentence(domain: int, tmp_path: Path, level: str) -> None:
    arguments = ["--ros-args", "--log-level", level]
    with Child(
        "groma_ros.node.main", arguments, tmp_path / "log.txt", {"ROS_DOMAIN_ID": str(domain)}
    ) as child:
        assert child.wait(120.0) == 1
        (line,) = [line for line in child.output().splitlines() if line.startswith("groma_node: ")]
    assert line.startswith("groma_node: The ROS arguments cannot be read: ") and level in line


@pytest.mark.parametrize("home", ["/proc/no/home", "/dev/null"])
def test_a_home_that_cannot_be_written_to_is_one_sentence(domain: int, tmp_path: Path, home: str) -> None:
    environment = {"HOME": home, "ROS_HOME": "", "ROS_LOG_DIR": ""}
    status, lines = ended(domain, tmp_path / "log.txt", {}, environment)
    assert status == 1 and len(lines) == 1
    assert "The folder for log files cannot be made: set ROS_LOG_DIR" in lines[0] and home in lines[0]


def segments(pid: int) -> list[Path]:
    """The segments in shared memory that the middleware of a process made for itself, with their locks."""
    opened = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            opened.add(Path(os.readlink(f"/proc/{pid}/fd/{number}")))
        except FileNotFoundError:  # closed meanwhile
            continue
    locks = [path for path in opened if path.parent == FOLDER and path.name.endswith(LOCK)]
    found = [path.with_name(path.name.removesuffix(LOCK)) for path in locks]
    return [path for path in found if SEGMENT.fullmatch(path.name)]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="shared memory is not in /dev/shm here")
def test_what_a_killed_node_left_in_shared_memory_is_removed_by_the_next(
    other_domain: int, tmp_path: Path, picture: NDArray[Any]
) -> None:
    # A node of a test that runs beside this one may be the next; not so several times.
    assert any(_removed_by_the_next(other_domain, tmp_path / name, picture) for name in "abc")


def _removed_by_the_next(domain: int, folder: Path, picture: NDArray[Any]) -> bool:
    """Kill a node and start another one, which must find none of its shared memory or remove it; whether it
    says so. domain: of its own, with nobody else in it, as those who heard a node tidy up after it."""
    folder.mkdir()
    with ExitStack() as stack:
        first = start_node(stack, domain, folder / "first.txt", PARAMETERS)
        end = time.monotonic() + STARTING
        while "Active" not in first.output():
            assert first.running and time.monotonic() < end, first.output()[-2000:]
            time.sleep(0.1)
        left = segments(first.pid)
        assert left and all(path.stat().st_size > 1_000_000 for path in left)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(5.0)
        try:
            for path in left:  # as if it had been started an hour ago
                lock = path.with_name(path.name + LOCK)
                os.utime(lock, (lock.stat().st_atime - 3600, lock.stat().st_mtime - 3600))
        except FileNotFoundError:
            return False
        robot = stack.enter_context(Robot(domain))
        alive = segments(os.getpid())
        second = start_node(stack, domain, folder / "second.txt", PARAMETERS)
        robot.meet(second)
        assert robot.ask(robot.image(picture))[1].groundings == []
        assert not any(path.exists() for path in left)
        assert alive and all(path.exists() for path in alive)
        return bool(re.search(r"Removed \d+ MB of shared memory that killed processes", second.output()))
