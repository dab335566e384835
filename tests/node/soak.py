"""A long run of one node: `python -m tests.node.soak --minutes 20`. tests/node/test_soak.py is its short form.

Two cameras at 30 Hz, other goals every second, other parameters every three, a lifecycle cycle every minute. Wrong are: memory that grows
after the warm-up, a camera that stays without an answer, an exception, a frame that nobody can account for, and an end that takes
long.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from groma_ros.msg import GroundingArray
from groma_ros.node.demo.processes import Child, dds_environment
from tests.node.robot import Robot, start_node
from tests.small import blocks

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
CAMERAS = ("left", "right")
RATE = 30.0
GOALS = ("the red mug", "all the boxes\nthe ball left of the bowl", "both blue objects", "the green cone\nthe leftmost object\nthe ring")
MEGABYTE = 1 << 20


@dataclass
class Result:
    """seconds: played; sent, answered: images and answers by camera; cycles: of the lifecycle; memory_mb: resident, after the warm-up
    and at the end; growth: share of it; longest_silence: seconds without an answer of a camera while active; status, ending: exit status
    and seconds to the end; problems: sentences, none where all is well."""

    seconds: float
    sent: dict[str, int]
    answered: dict[str, int]
    cycles: int
    memory_mb: tuple[float, float]
    growth: float
    longest_silence: float
    status: int
    ending: float
    problems: list[str]


class Soak:
    """The run. warm_up: seconds before memory counts."""

    def __init__(self, robot: Robot, node: Child) -> None:
        self.robot, self.node = robot, node
        self.counts: dict[str, dict[str, str]] = {}
        self.answers: dict[str, int] = dict.fromkeys(CAMERAS, 0)
        self.heard: dict[str, float] = {}
        self.silence = 0.0
        self.cycles = 0
        self.images = {name: robot.node.create_publisher(Image, f"{name}/image", qos_profile_sensor_data) for name in CAMERAS}
        for name in CAMERAS:
            robot.node.create_subscription(GroundingArray, f"groma/{name}/groundings", self._listener(name), 50)
        robot.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        robot.until(lambda: all(item.get_subscription_count() for item in self.images.values()), "the cameras' match")

    def _listener(self, name: str) -> Any:
        def hear(message: GroundingArray) -> None:
            now = time.monotonic()
            self.silence = max(self.silence, now - self.heard.get(name, now))
            self.heard[name] = now
            self.answers[name] += 1

        return hear

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.counts = {status.name: {item.key: item.value for item in status.values} for status in message.status}

    def run(self, seconds: float, warm_up: float, cycle: float) -> Result:
        """Play for so many seconds."""
        frames = [self.robot.image(blocks(seed)) for seed in range(8)]
        start = time.monotonic()
        sent, early = dict.fromkeys(CAMERAS, 0), 0.0
        next_goal = next_parameter = start
        next_cycle = start + cycle
        tick = 0
        while (now := time.monotonic()) < start + seconds:
            for name in CAMERAS:
                message = frames[(tick + len(name)) % len(frames)]
                message.header = self.robot.header(name)
                self.images[name].publish(message)
                sent[name] += 1
            if now >= next_goal:
                next_goal += 1.0
                self.robot.goals.publish(String(data=GOALS[int(now) % len(GOALS)]))
            if now >= next_parameter:
                next_parameter += 3.0
                self._change(min_presence=0.1 + 0.05 * (tick % 5), debug_image=bool(tick % 2))
            if now >= next_cycle:
                next_cycle += cycle
                self._cycle()
            if not early and now > start + warm_up:
                early = self._memory()
            tick += 1
            self.robot.spin(max(0.001, start + tick / RATE - time.monotonic()))
        late = self._memory()
        self.robot.until(self._settled, "the last frames", 60.0)
        status, ending = self.node.interrupt()
        growth = late / early - 1
        result = Result(seconds, sent, dict(self.answers), self.cycles, (early, late), growth, self.silence, status, ending, [])
        result.problems += self._problems()
        return result

    def _change(self, **values: Any) -> None:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        self.robot.client(SetParameters, "groma/set_parameters").call_async(request)

    def _cycle(self) -> None:
        for label in ("deactivate", "cleanup", "configure", "activate"):
            request = ChangeState.Request()
            request.transition.label = label
            assert self.robot.call(ChangeState, "groma/change_state", request).success, f"{label} failed: {self.node.output()[-1000:]}"
        self.robot.until(lambda: all(item.get_subscription_count() for item in self.images.values()), "the cameras' match")
        self.heard.clear()
        self.counts.clear()
        self.cycles += 1

    def _memory(self) -> float:
        pages = int(Path(f"/proc/{self.node.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE

    def _settled(self) -> bool:
        return bool(self.counts) and all(self._open(name) == 0 for name in CAMERAS)

    def _open(self, name: str) -> int:
        """Frames of a camera that came and have no fate yet."""
        counts = {key: value for key, value in self.counts.get(f"groma: camera {name}", {}).items()}
        fates = ("answered", "carried", "dropped", "skipped", "refused images")
        return int(counts.get("received", "-1")) - sum(int(counts.get(key, "0")) for key in fates)

    def _problems(self) -> list[str]:
        output = self.node.output()
        found = [line for line in output.splitlines() if "Traceback" in line or "could not be answered" in line or "abandoned" in line]
        return found + [f"camera {name} was never answered" for name, count in self.answers.items() if not count]


def soak(seconds: float, warm_up: float, cycle: float, domain: int, folder: Path) -> Result:
    """One run with a node of its own on a DDS domain; its log is in the folder."""
    parameters = {"model": TINY, "backend": "onnx", "threads": 1, "cameras": "[left, right]", "answer_period": 0.5}
    with ExitStack() as stack:
        child = start_node(stack, domain, folder / "log.txt", parameters)
        robot = stack.enter_context(Robot(domain))
        robot.until(lambda: child.running and robot.goals.get_subscription_count(), "the node")
        return Soak(robot, child).run(seconds, warm_up, cycle)


def main() -> int:
    """Run it and print what came of it as JSON; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    os.environ.update(dds_environment())
    with tempfile.TemporaryDirectory() as folder:
        seconds = 60 * options.minutes
        result = soak(seconds, min(180.0, seconds / 4), 60.0, 1 + os.getpid() % 100, Path(folder))
    print(json.dumps(asdict(result), indent=1))
    return 1 if result.problems or result.growth > 0.02 or result.status else 0


if __name__ == "__main__":
    sys.exit(main())
