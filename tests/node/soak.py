"""A long run of one node: `python -m tests.node.soak --minutes 20`. tests/node/test_soak.py is its short
form.

Two cameras at 30 Hz, other goals every second, other parameters every three, a lifecycle cycle every minute.
Wrong are: memory that grows after the warm-up, a camera that stays without an answer, an exception, a frame
that nobody can account for, and an end that takes long.

Memory is the resident set of the node while it is active, read every second. Compared are the medians of two
spans as long as the time between two lifecycle cycles: the first after the warm-up, and the last. So both
hold the same mixture of states.
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
from statistics import median
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.client.groma_client import images_in_progress
from groma_ros.msg import GroundingArray
from groma_ros.progress import ProgressReporter
from tests.node.robot import Robot, start_node
from tests.small import blocks

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
CAMERAS = ("left", "right")
RATE = 30.0
GOALS = (
    "the red mug",
    "all the boxes\nthe ball left of the bowl",
    "both blue objects",
    "the green cone\nthe leftmost object\nthe ring",
)
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """growth: most that the memory may grow, a share of what it is after the warm-up; ending: seconds from
    the interrupt to the end."""

    growth: float = 0.02
    ending: float = 2.0


@dataclass
class Result:
    """seconds: played; limits: what is allowed; warm_up, span: of what memory is compared, seconds; sent,
    answered: images and answers by camera; goals, parameters: how often they changed; cycles: of the
    lifecycle; memory_mb: resident, after the warm-up and at the end; growth: share of it; longest_silence:
    seconds without an answer of a camera while active; status, ending: exit status and seconds to the end;
    problems: sentences, none where all is well."""

    seconds: float
    limits: Limits
    warm_up: float
    span: float
    sent: dict[str, int]
    answered: dict[str, int]
    goals: int
    parameters: int
    cycles: int
    memory_mb: tuple[float, float]
    growth: float
    longest_silence: float
    status: int
    ending: float
    problems: list[str]


class Soak:
    """The run, and what is seen on the way. memory: seconds since the start, and MB, while the node is
    active."""

    def __init__(self, robot: Robot, node: Child) -> None:
        self.robot, self.node = robot, node
        self.answers: dict[str, int] = dict.fromkeys(CAMERAS, 0)
        self.heard: dict[str, float] = {}
        self.silence = 0.0
        self.cycles = self.goals = self.parameters = 0
        self.memory: list[tuple[float, float]] = []
        self.images = {
            name: robot.node.create_publisher(Image, f"{name}/image", qos_profile_sensor_data)
            for name in CAMERAS
        }
        for name in CAMERAS:
            robot.node.create_subscription(
                GroundingArray, f"groma/{name}/groundings", self._listener(name), 50
            )
        robot.until(
            lambda: all(item.get_subscription_count() for item in self.images.values()), "the cameras' match"
        )

    def _listener(self, name: str) -> Any:
        def hear(message: GroundingArray) -> None:
            now = time.monotonic()
            self.silence = max(self.silence, now - self.heard.get(name, now))
            self.heard[name] = now
            self.answers[name] += 1

        return hear

    def run(self, seconds: float, warm_up: float, cycle: float, limits: Limits) -> Result:
        """Play for so many seconds, `warm_up` of which do not count for the memory, with a lifecycle cycle
        every `cycle`."""
        frames, told = [self.robot.image(blocks(seed)) for seed in range(8)], ProgressReporter("soak")
        start = time.monotonic()
        sent, tick = dict.fromkeys(CAMERAS, 0), 0
        goal, parameter, look, turn = (
            Beat(start, 1.0),
            Beat(start, 3.0),
            Beat(start, 1.0),
            Beat(start + cycle, cycle),
        )
        while (now := time.monotonic()) < start + seconds:
            for name in CAMERAS:
                message = frames[(tick + len(name)) % len(frames)]
                message.header = self.robot.header(name)
                self.images[name].publish(message)
                sent[name] += 1
            if goal.due(now):
                self.robot.goals.publish(String(data=GOALS[self.goals % len(GOALS)]))
                self.goals += 1
            if parameter.due(now):
                self._change(
                    min_presence=0.1 + 0.05 * (self.parameters % 5), debug_image=bool(self.parameters % 2)
                )
            if turn.due(now):
                self._cycle()
            if look.due(now):
                self.memory.append((now - start, self._resident()))
                told(int(now - start), int(seconds), "seconds")
            tick += 1
            self.robot.spin(max(0.001, start + tick / RATE - time.monotonic()))
        self.robot.until(self._settled, "the last frames", 60.0)
        status, ending = self.node.interrupt()
        early, late = self._median(warm_up, warm_up + cycle), self._median(seconds - cycle, seconds)
        counts = (self.goals, self.parameters, self.cycles)
        growth, problems = late / early - 1, self._problems()
        result = Result(
            seconds,
            limits,
            warm_up,
            cycle,
            sent,
            dict(self.answers),
            *counts,
            (early, late),
            growth,
            self.silence,
            status,
            ending,
            problems,
        )
        result.problems.extend(judged(result))
        return result

    def _median(self, begin: float, end: float) -> float:
        """The median of the memory between two times, in MB."""
        return median(value for moment, value in self.memory if begin <= moment <= end)

    def _change(self, **values: Any) -> None:
        self.parameters += 1
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        self.robot.client(SetParameters, "groma/set_parameters").call_async(request)

    def _cycle(self) -> None:
        for label in ("deactivate", "cleanup", "configure", "activate"):
            request = ChangeState.Request()
            request.transition.label = label
            assert self.robot.call(ChangeState, "groma/change_state", request).success, (
                f"{label} failed: {self.node.output()[-1000:]}"
            )
        self.robot.until(
            lambda: all(item.get_subscription_count() for item in self.images.values()), "the cameras' match"
        )
        self.heard.clear()
        self.robot.reports.clear()
        self.cycles += 1

    def _resident(self) -> float:
        pages = int(Path(f"/proc/{self.node.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE

    def _settled(self) -> bool:
        return bool(self.robot.reports) and all(self._open(name) == 0 for name in CAMERAS)

    def _open(self, name: str) -> int:
        """Images of a camera in progress; -1 before its first report."""
        counts = self.robot.reports.get(f"groma: camera {name}")
        return images_in_progress(counts) if counts else -1

    def _problems(self) -> list[str]:
        output = self.node.output()
        found = [
            line
            for line in output.splitlines()
            if "Traceback" in line or "could not be answered" in line or "abandoned" in line
        ]
        return found + [
            f"camera {name} was never answered" for name, count in self.answers.items() if not count
        ]


class Beat:
    """Something to do every `period` seconds, from `next` on; what was missed is left out."""

    def __init__(self, next: float, period: float) -> None:
        self._next, self._period = next, period

    def due(self, now: float) -> bool:
        """Whether it is time, seconds of the same clock."""
        if now < self._next:
            return False
        self._next += self._period * (1 + (now - self._next) // self._period)
        return True


def judged(result: Result) -> list[str]:
    """What is wrong with the figures of a run, in sentences."""
    limits = result.limits
    wrong = {
        f"The node ended with the status {result.status}.": result.status != 0,
        f"It took {result.ending:.1f} s to end; {limits.ending:g} s are allowed.": result.ending
        > limits.ending,
        f"The memory grew by {result.growth:.2%}; {limits.growth:.0%} are allowed.": result.growth
        > limits.growth,
    }
    return [sentence for sentence, holds in wrong.items() if holds]


def table(result: Result) -> str:
    """The figures as lines to read."""
    early, late = result.memory_mb
    rows = [("played", f"{result.seconds:.0f} s, of which {result.warm_up:.0f} s of warm-up")]
    for name in CAMERAS:
        rows.append(
            (
                f"camera {name}",
                f"{result.sent[name]} images sent at {result.sent[name] / result.seconds:.1f} Hz (of "
                f"{RATE:g})",
            )
        )
        rows.append(
            (
                "",
                f"{result.answered[name]} answers heard, {result.answered[name] / result.seconds:.1f} a "
                "second",
            )
        )
    rows += [
        (
            "changes",
            f"goals {result.goals}, parameters {result.parameters}, lifecycle cycles {result.cycles}",
        ),
        ("longest silence", f"{result.longest_silence:.1f} s without an answer of a camera while active"),
        (
            "memory",
            f"{early:.1f} MB after the warm-up, {late:.1f} MB at the end (medians of {result.span:.0f} s "
            "each)",
        ),
        ("growth", f"{result.growth:+.2%} (at most {result.limits.growth:.0%})"),
        ("end", f"status {result.status} after {result.ending:.2f} s (at most {result.limits.ending:g} s)"),
        ("problems", "none" if not result.problems else result.problems[0]),
    ]
    rows += [("", problem) for problem in result.problems[1:]]
    return "\n".join(f"{name:<18}{text}" for name, text in rows)


def soak(seconds: float, warm_up: float, cycle: float, domain: int, folder: Path, limits: Limits) -> Result:
    """One run with a node of its own on a DDS domain; its log is in the folder."""
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "cameras": "[left, right]",
        "answer_period": 0.5,
    }
    with ExitStack() as stack:
        child = start_node(stack, domain, folder / "log.txt", parameters)
        robot = stack.enter_context(Robot(domain))
        robot.until(lambda: child.running and robot.goals.get_subscription_count(), "the node")
        return Soak(robot, child).run(seconds, warm_up, cycle, limits)


def main() -> int:
    """Run it and print what came of it; 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="minutes of playing, 3 or more (default 20)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")
    options = parser.parse_args()
    if options.minutes < 3:
        parser.error(
            "--minutes must be 3 or more: a lifecycle cycle takes one, and two of them are compared after "
            "the warm-up"
        )
    os.environ.update(dds_environment())
    with tempfile.TemporaryDirectory() as folder:
        seconds = 60 * options.minutes
        result = soak(seconds, min(180.0, seconds / 4), 60.0, unused_domain(), Path(folder), Limits())
    print(json.dumps(asdict(result), indent=1) if options.json else table(result))
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
