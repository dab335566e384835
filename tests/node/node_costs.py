"""Processor time of a node against that of the bare pipeline, over DDS.

    python -m tests.node.node_costs                       # docs/performance.md has the table
    python -m tests.node.node_costs --sizes 640x480 --goals 1 --images 20 --json

A node process with one thread is sent raw images, each after the output of the one before, so that every
image is perceived, asked about and answered however busy the machine is. Counted is the processor time of its
whole process, less what the idle node uses in as much time. The bare pipeline is `Grounder.perceive` and
`ground`, with depth also `place_all`, on the same images in this process, half of it before and half after
the node's, so that other load affects both alike. It pauses before each image as the node does while the next
image is on its way: computing without a pause takes a sixth less on processors that slow down when idle.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.geometry3d.box3d import place_all
from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import Goal as GoalMessage
from groma_ros.node.conversions import frame_from_image, image_message, to_nanoseconds, to_time, with_depth
from groma_ros.srv import SetGoals
from groma_ros.types import Frame, Goal
from tests.node.robot import Robot, start_node
from tests.node.slow_table import FIRST_STAMP, SECOND, TINY, Footage

GOALS = (
    "the ball",
    "both blue objects",
    "green object",
    "the rightmost bottle",
    "all the objects that are not green",
    "the green bottle in front of the red mug",
    "the lemon between the ball and the red mug",
    "the leftmost object",
    "red cone",
    "the carton",
)
SIZES = ("640x480", "1920x1080")
DEEP = QoSProfile(depth=100)
IDLE_SECONDS = 8.0
"""How long the idle node is measured."""
PAUSE_SECONDS = 0.01
"""How long the bare pipeline pauses before each image."""


@dataclass(frozen=True)
class Row:
    """One row of the table; milliseconds of processor time an image."""

    size: str
    goals: int
    depth: bool
    images: int
    boxes: int
    """Distinct boxes of the last image's answers: the 3D part places each once."""
    bare_ms: float
    node_ms: float
    added: float
    """The node's share on top of the bare pipeline."""
    idle: float
    """Share of a core that the node uses while no image comes; not in `node_ms`."""


class Scenery:
    """The demo's frames at another size, as messages and as frames of the pipeline."""

    def __init__(self, size: str, count: int) -> None:
        self.size = width, height = tuple(int(part) for part in size.split("x"))
        footage, self.messages, self.frames = Footage(), [], []
        for step in range(count):
            header = Header(stamp=to_time(FIRST_STAMP + step * SECOND), frame_id="camera")
            packed = footage.message(CompressedImage, step, header)
            rgb = cv2.resize(frame_from_image(packed).rgb, self.size, interpolation=cv2.INTER_LINEAR)
            image = image_message(header, rgb)
            depth, info = self._depth(footage, step, header, (width, height))
            self.messages.append((image, depth, info))
            frame = with_depth(frame_from_image(image), depth, info, False)
            assert frame.depth is not None
            self.frames.append(frame)

    @staticmethod
    def _depth(
        footage: Footage, step: int, header: Header, size: tuple[int, int]
    ) -> tuple[Image, CameraInfo]:
        """Depth and camera_info of a step as if the camera had this size."""
        depth, info = footage.message(Image, step, header), footage.message(CameraInfo, step, header)
        kind = {"16UC1": np.uint16, "32FC1": np.float32}[depth.encoding]
        values = np.frombuffer(bytes(depth.data), kind).reshape(depth.height, -1)
        values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        scaled = Image(header=header, height=size[1], width=size[0], encoding=depth.encoding)
        scaled.step, scaled.data = values.strides[0], values.tobytes()
        across, down = size[0] / depth.width, size[1] / depth.height
        ratios = np.array([[across], [down], [1.0]])
        other = CameraInfo(header=header, width=size[0], height=size[1])
        other.k = [float(value) for value in (np.array(info.k).reshape(3, 3) * ratios).ravel()]
        other.p = [float(value) for value in (np.array(info.p).reshape(3, 4) * ratios).ravel()]
        return scaled, other


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Rig:
    """A node, the camera that sends to it, and a grounder of the same model in this process."""

    def __init__(self, robot: Robot, child: Child, grounder: Grounder) -> None:
        self.robot, self.child, self.grounder = robot, child, grounder
        self._publishers = [
            robot.node.create_publisher(kind, topic, DEEP)
            for kind, topic in ((Image, "image"), (Image, "depth"), (CameraInfo, "camera_info"))
        ]
        self._placed: set[int] = set()
        self.idle = 0.0
        self._listener: Any = None
        robot.until(
            lambda: all(item.get_subscription_count() for item in self._publishers) and robot.diagnostics,
            "meeting the node",
            300.0,
        )
        robot.client(SetGoals, "groma/set_goals")

    def listen(self, depth: bool) -> None:
        """Listen to the 3D answers, or to the 2D ones alone."""
        if self._listener is not None:
            self.robot.node.destroy_subscription(self._listener)
            self._listener = None
        if depth:

            def note(message: Any) -> None:
                self._placed.add(to_nanoseconds(message.header.stamp))

            self._listener = self.robot.node.create_subscription(
                Detection3DArray, "groma/detections_3d", note, DEEP
            )
        topic = "/groma/detections_3d"
        self.robot.until(
            lambda: bool(self.robot.node.count_subscribers(topic)) == depth, "the match of the listener"
        )
        self.robot.spin(1.0)

    def node(self, scenery: Scenery, depth: bool, rounds: int) -> float:
        """Processor time of the node for `rounds` images, milliseconds each."""
        start, begin = processor_seconds(self.child.pid), time.monotonic()
        for step in range(rounds):
            image, *others = scenery.messages[step % len(scenery.messages)]
            stamp = self.robot.header().stamp
            for message, publisher in zip(
                (*others, image), (*self._publishers[1:], self._publishers[0]), strict=True
            ):
                message.header.stamp = stamp
                if depth or message is image:
                    publisher.publish(message)
            wanted = to_nanoseconds(stamp)

            def answered(wanted: int = wanted) -> bool:
                assert self.child.running, self.child.output()[-2000:]
                heard = (
                    self.robot.groundings and to_nanoseconds(self.robot.groundings[-1].header.stamp) == wanted
                )
                return bool(heard) and (not depth or wanted in self._placed)

            self.robot.until(answered, "the answers to an image", 60.0)
        spent = processor_seconds(self.child.pid) - start - self.idle * (time.monotonic() - begin)
        return 1e3 * spent / rounds

    def rest(self, seconds: float) -> None:
        """Measure what the node uses while no image comes."""
        start, begin = processor_seconds(self.child.pid), time.monotonic()
        self.robot.spin(seconds)
        self.idle = (processor_seconds(self.child.pid) - start) / (time.monotonic() - begin)

    def bare(
        self, scenery: Scenery, goals: Sequence[Goal], depth: bool, rounds: int
    ) -> tuple[list[float], int]:
        """Processor time of the pipeline alone for each image, milliseconds, and the boxes of the last."""
        times, boxes = [], 0
        for step in range(rounds):
            frame: Frame = scenery.frames[step % len(scenery.frames)]
            time.sleep(PAUSE_SECONDS)
            start = time.process_time()
            groundings = self.grounder.ground(self.grounder.perceive(frame), goals)
            if depth:
                place_all(frame, groundings, lambda error: None)
            times.append(1e3 * (time.process_time() - start))
            boxes = len({item.box for one in groundings for item in one.detections})
        return times, boxes

    def measure(self, scenery: Scenery, count: int, depth: bool, rounds: int) -> Row:
        """One row."""
        goals = [GoalMessage(text=text) for text in GOALS[:count]]
        assert self.robot.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=goals)).success
        self.listen(depth)
        plain = [Goal(text) for text in GOALS[:count]]
        self.node(scenery, depth, 3), self.bare(scenery, plain, depth, 3)
        before, boxes = self.bare(scenery, plain, depth, rounds // 2)
        spent = self.node(scenery, depth, rounds)
        times = before + self.bare(scenery, plain, depth, rounds // 2)[0]
        alone = median(times)
        size = f"{scenery.size[0]}x{scenery.size[1]}"
        added = round(spent / alone - 1, 3)
        idle = round(self.idle, 4)
        return Row(size, count, depth, rounds, boxes, round(alone, 1), round(spent, 1), added, idle)


def measure(
    sizes: Sequence[str],
    goals: Sequence[int],
    images: int,
    domain: int,
    log: Path,
    depths: Sequence[bool] = (False, True),
) -> list[Row]:
    """All rows; a node process of its own for each size."""
    cv2.setNumThreads(1)
    rows = []
    grounder = Grounder.load(TINY, backend="onnx", threads=1)
    for size in sizes:
        parameters = {
            "model": TINY,
            "backend": "onnx",
            "threads": 1,
            # Every image waits for its own answer, as the bare pipeline does.
            "answer_wait": 30.0,
            "depth_wait": 5.0,
            "carry": False,
        }
        with ExitStack() as stack:
            robot = stack.enter_context(Robot(domain))
            rig = Rig(robot, start_node(stack, domain, log, parameters), grounder)
            scenery = Scenery(size, 20)
            robot.spin(2.0)
            rig.rest(IDLE_SECONDS)
            for depth in depths:
                for count in goals:
                    rows.append(rig.measure(scenery, count, depth, images))
                    print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Measure and write the rows; exit status 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(SIZES), help="image sizes, separated by commas")
    parser.add_argument(
        "--goals", default="1,10", help=f"numbers of goals up to {len(GOALS)}, separated by commas"
    )
    parser.add_argument("--images", type=int, default=40, help="images per row (default: 40)")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")
    args = parser.parse_args()
    os.environ.update(dds_environment())
    goals = [min(len(GOALS), int(part)) for part in args.goals.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        rows = measure(args.sizes.split(","), goals, args.images, unused_domain(), log)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
