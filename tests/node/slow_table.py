"""What a node publishes while its language model is slow, and with a listener on every topic, over DDS.

    python -m tests.node.slow_table                                    # docs/tracking.md has the tables
    python -m tests.node.slow_table --seconds 2.5 --cameras 2 --span 10
    python -m tests.node.slow_table --every-topic

Each row is a node process of its own (tests/node/slow_node.py) that is sent the demo's images, played back
and forth at 10 Hz, reliably, so that what is lost is lost by the node. The goals change twice in a row's
span. With --every-topic images and depth come at 30 Hz and every topic has a listener.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from groma_ros.client.demo.bag import read_bag
from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.matching import found_for
from groma_ros.msg import Goal, Grounding, GroundingArray
from groma_ros.node.conversions import box_corners, to_nanoseconds, to_time
from groma_ros.node.publishers import ANSWERS, MARKERS, PICTURES, TOPICS_3D
from groma_ros.srv import SetGoals
from groma_ros.types import FloatArray
from tests.node.robot import Robot, start_node

ROOT = Path(__file__).parents[2]
TINY, BAG, TRUTH = (
    ROOT / "engines" / "groma-tiny",
    ROOT / "demo" / "tabletop.mcap",
    ROOT / "demo" / "truth.json",
)
SECOND = 1_000_000_000
FIRST_STAMP = 1_000_000 * SECOND
GOALS = (
    ("the rightmost bottle", "all the blue objects"),
    ("the rightmost bottle", "the green bottle in front of the red mug"),
    ("the rightmost bottle", "the lemon between the ball and the red mug"),
)
"""The sets of goals that follow each other; the first goal stands in all of them."""
DEEP = QoSProfile(depth=100)


class Footage:
    """The demo's frames with depth and truth, played back and forth without end."""

    def __init__(self) -> None:
        truth = json.loads(TRUTH.read_text())
        self._boxes = {frame["stamp"]: np.array(frame["boxes"], np.float32) for frame in truth["frames"]}
        self._targets = {goal["text"]: goal["targets"] for goal in truth["goals"]}
        kinds = {
            "sensor_msgs/msg/CompressedImage": CompressedImage,
            "sensor_msgs/msg/Image": Image,
            "sensor_msgs/msg/CameraInfo": CameraInfo,
        }
        bag = read_bag(BAG)
        self._found: dict[Any, dict[int, Any]] = {kind: {} for kind in kinds.values()}
        for record in bag.records:
            kind = kinds[bag.topics[record.topic].type]
            message = deserialize_message(record.data, kind)
            self._found[kind][to_nanoseconds(message.header.stamp)] = message
        self._stamps = sorted(self._found[CompressedImage])

    def _stamp(self, step: int) -> int:
        """Stamp in the bag of what is played at a step."""
        last = len(self._stamps) - 1
        place = step % (2 * last)
        return self._stamps[min(place, 2 * last - place)]

    def message(self, kind: Any, step: int, header: Header) -> Any:
        """The image, depth image or camera_info of a step under another header; the newest where the bag has
        none with the image."""
        stamp, found = self._stamp(step), self._found[kind]
        message = found[max((item for item in found if item <= stamp), default=min(found))]
        message.header = header
        return message

    def targets(self, step: int, goal: str) -> FloatArray:
        """True boxes of a goal, float32 Tx4 xyxy pixels."""
        boxes: FloatArray = self._boxes[self._stamp(step)][self._targets[goal]]
        return boxes


@dataclass
class Tally:
    """What is counted of one camera's outputs."""

    outputs: int = 0
    after: int = 0
    """Outputs from one frame after the first answer on."""
    boxed: int = 0
    """Those of them on which every answered goal has a box."""
    pending: int = 0
    """Goals in outputs after the first answer that were not answered yet."""
    goals: int = 0
    """All goals in those outputs."""
    iou: list[float] = field(default_factory=list)
    """IoU of each true box with the box published for it, on images that the language model did not see."""
    switches: int = 0
    _answered: set[str] = field(default_factory=set)
    _names: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, output: GroundingArray, targets: Mapping[str, FloatArray]) -> None:
        """Count the next output in the order of stamps; targets: the true boxes of each goal."""
        self.outputs += 1
        standing = {item.goal for item in output.groundings}
        known = self._answered & standing
        if self._answered:
            self.after += 1
            self.boxed += all(item.detections for item in output.groundings if item.goal in known)
            self.pending += sum(item.status == Grounding.PENDING for item in output.groundings)
            self.goals += len(output.groundings)
        for item in output.groundings:
            if item.goal in known:
                self._judge(item, targets[item.goal], output.answered != output.header.stamp)
        answered = {item.goal for item in output.groundings if item.status != Grounding.PENDING}
        self._answered = known | answered

    def _judge(self, item: Grounding, targets: FloatArray, carried: bool) -> None:
        boxes = np.array([box_corners(one.bbox) for one in item.detections], np.float32).reshape(-1, 4)
        pairs = found_for(targets, boxes)
        for target, (box, value) in enumerate(pairs):
            if value >= 0.5:
                key, name = (item.goal, target), item.detections[box].id
                self.switches += self._names.setdefault(key, name) != name
                self._names[key] = name
        if carried:
            self.iou += [value for _, value in pairs]


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    answer_seconds: float
    cameras: int
    images: int
    """Sent after the node was met."""
    sent_hz: float
    """A second and camera, as far as this process kept up."""
    outputs: int
    perceived: float
    """Share of the images; the others were carried by motion."""
    first_answer: float
    """Seconds of stamps until the first answer of the last camera."""
    boxed: float
    """Share of outputs from one frame after the first answer on with boxes for every goal answered."""
    pending: float
    """Share of goals in those outputs that were new and not answered yet."""
    iou: float
    switches_per_minute: float
    longest_gap: float
    """Seconds between two outputs of a camera, by the wall clock."""


class Session:
    """A node process, the cameras and all listeners."""

    def __init__(self, robot: Robot, child: Child, names: Sequence[str], depth: bool = False) -> None:
        self.robot, self.child, self.names, self.footage = robot, child, names, Footage()
        self.heard: dict[str, dict[int, GroundingArray]] = {name: {} for name in names}
        self.times: dict[str, list[float]] = {}
        """`time.monotonic` at which a message of each topic came."""
        kinds = {"image/compressed": CompressedImage}
        kinds |= {"depth": Image, "camera_info": CameraInfo} if depth else {}
        self._publishers = {
            (name, topic): robot.node.create_publisher(kind, _join(name, topic), DEEP)
            for name in names
            for topic, kind in kinds.items()
        }
        for name in names:
            topic = _join("groma", name, "groundings")
            robot.node.create_subscription(GroundingArray, topic, self._listener(name), DEEP)
        self.step = 0

    def _listener(self, name: str) -> Callable[[GroundingArray], None]:
        def hear(message: GroundingArray) -> None:
            self.times.setdefault(_join(name, "groundings"), []).append(time.monotonic())
            self.heard[name][to_nanoseconds(message.header.stamp)] = message

        return hear

    def listen(self, kind: Any, topic: str) -> None:
        """Note when messages of one more topic come; they are not read."""
        times = self.times.setdefault(topic, [])
        name = _join("groma", topic)
        self.robot.node.create_subscription(
            kind, name, lambda data: times.append(time.monotonic()), DEEP, raw=True
        )

    def meet(self) -> None:
        """Wait until the node listens to every camera, and goals can be set."""
        robot = self.robot

        def met() -> bool:
            assert self.child.running, f"the node ended: {self.child.output()[-2000:]}"
            return all(item.get_subscription_count() for item in self._publishers.values())

        robot.until(met, "meeting the node", 300.0)
        robot.client(SetGoals, "groma/set_goals")
        robot.spin(1.0)

    def set_goals(self, texts: Sequence[str]) -> None:
        """Replace the goals, without waiting for the answer."""
        request = SetGoals.Request(goals=[Goal(text=text) for text in texts])
        self.robot.client(SetGoals, "groma/set_goals").call_async(request)

    def stamp(self, step: int, hz: float) -> int:
        """Stamp of the images of a step, ns."""
        return FIRST_STAMP + round(step * SECOND / hz)

    def play(self, seconds: float, hz: float, picture: Callable[[int], int] = lambda step: step) -> None:
        """Send images for so many seconds. picture: the footage's step that is played at a step."""
        start, first = time.monotonic(), self.step
        while self.step - first < seconds * hz:
            assert self.child.running, f"the node ended: {self.child.output()[-2000:]}"
            for (name, _), publisher in self._publishers.items():
                header = Header(stamp=to_time(self.stamp(self.step, hz)), frame_id=name or "camera")
                kind = publisher.msg_type
                publisher.publish(self.footage.message(kind, picture(self.step), header))
            self.step += 1
            wait = start + (self.step - first) / hz - time.monotonic()
            self.robot.spin(max(0.001, wait))

    def perceived(self) -> int:
        """Images that the node perceived so far."""
        return self.robot.count_now("perceived")


def measure_slow(seconds: float, cameras: int, span: float, domain: int, log: Path, hz: float = 10.0) -> Row:
    """A row: play until every camera has its first answer, then for `span` seconds in which the goals change
    twice."""
    names = ["left", "right", "front", "rear"][:cameras] if cameras > 1 else [""]
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "image_transport": "compressed",
        "image_reliability": "reliable",
        "goals": json.dumps(list(GOALS[0])).replace('"', "'"),
        **({"cameras": f"[{', '.join(names)}]"} if cameras > 1 else {}),
        **{f"qos_overrides./{_join(name, 'image/compressed')}.subscription.depth": 100 for name in names},
    }
    with ExitStack() as stack:
        robot = stack.enter_context(Robot(domain))
        child = start_node(stack, domain, log, parameters, "tests.node.slow_node", [str(seconds)])
        session = Session(robot, child, names)
        session.meet()
        before, start = session.perceived(), time.monotonic()

        def first_answers() -> bool:
            return all(
                any(
                    item.groundings and item.groundings[0].status != Grounding.PENDING
                    for item in found.values()
                )
                for found in session.heard.values()
            )

        end = time.monotonic() + 60 + 4 * seconds * cameras
        while not first_answers():
            assert time.monotonic() < end, "no answer came"
            session.play(0.5, hz)
        for goals in (*GOALS[1:], None):
            session.play(span / len(GOALS), hz)
            if goals is not None:
                session.set_goals(goals)
        played = time.monotonic() - start
        last = session.stamp(session.step - 1, hz)
        robot.until(lambda: all(last in found for found in session.heard.values()), "the last output", 30.0)
        perceived = session.perceived() - before
    return _row(session, seconds, hz, played, perceived)


def _row(session: Session, seconds: float, hz: float, played: float, perceived: int) -> Row:
    tallies, firsts = [], []
    texts = {text for goals in GOALS for text in goals}
    for name in session.names:
        tally, found = Tally(), session.heard[name]
        steps = [step for step in range(session.step) if session.stamp(step, hz) in found]
        for step in steps:
            tally.add(
                found[session.stamp(step, hz)], {text: session.footage.targets(step, text) for text in texts}
            )
        firsts.append(len(steps) - tally.after)
        tallies.append(tally)
    images, minutes = session.step * len(session.names), sum(item.after for item in tallies) / hz / 60
    gaps = [float(np.diff(session.times[_join(name, "groundings")]).max()) for name in session.names]
    ious = [value for item in tallies for value in item.iou]
    goals = max(1, sum(item.goals for item in tallies))
    return Row(
        answer_seconds=seconds,
        cameras=len(session.names),
        images=images,
        sent_hz=round(session.step / played, 2),
        outputs=sum(item.outputs for item in tallies),
        perceived=round(perceived / images, 3),
        first_answer=max(firsts) / hz,
        boxed=round(sum(item.boxed for item in tallies) / max(1, sum(item.after for item in tallies)), 4),
        pending=round(sum(item.pending for item in tallies) / goals, 3),
        iou=round(float(np.mean(ious)), 3) if ious else 0.0,
        switches_per_minute=round(sum(item.switches for item in tallies) / minutes, 2) if minutes else 0.0,
        longest_gap=round(max(gaps), 2),
    )


@dataclass(frozen=True)
class TopicRow:
    """One topic while all are listened to."""

    topic: str
    images: int
    """Sent meanwhile."""
    messages: int
    perceived: int
    """Images that the node perceived meanwhile."""
    of_perceived: float
    """Messages a perceived image; the 2D answers are published for the others too."""
    longest_gap: float
    """Seconds between two messages, by the wall clock."""


def measure_topics(
    span: float, domain: int, log: Path, seconds: float = 0.0, hz: float = 30.0
) -> list[TopicRow]:
    """Images, depth and camera_info at `hz` with a listener on every topic, for `span` seconds after the
    first answer. seconds: that an answer of the language model takes longer."""
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "image_transport": "compressed",
        "image_reliability": "reliable",
        "debug_image": True,
        "goals": json.dumps(list(GOALS[0])).replace('"', "'"),
    }
    with ExitStack() as stack:
        robot = stack.enter_context(Robot(domain))
        child = start_node(stack, domain, log, parameters, "tests.node.slow_node", [str(seconds)])
        session = Session(robot, child, [""], depth=True)
        topics = {**ANSWERS, **TOPICS_3D, **MARKERS, **PICTURES}
        del topics["groundings"]
        for topic, (kind, _) in topics.items():
            session.listen(kind, topic)
        session.meet()

        def slowly(step: int) -> int:
            return step // 3  # the footage is of 10 Hz

        end = time.monotonic() + 60
        while not session.times["target_pose"]:
            assert time.monotonic() < end, "no target came"
            session.play(0.5, hz, slowly)
        robot.spin(1.5)  # for the last of those images
        before, begin, first = session.perceived(), time.monotonic(), session.step
        session.play(span, hz, slowly)
        images = session.step - first
        last = time.monotonic()
        robot.spin(1.5)
        perceived = session.perceived() - before
    rows = []
    for topic in ("groundings", *topics):
        times = [begin, *(moment for moment in session.times[topic] if moment >= begin)]
        gap, count = float(np.diff([*times, max(last, times[-1])]).max()), len(times) - 1
        share = round(count / max(1, perceived), 3)
        rows.append(TopicRow(topic, images, count, perceived, share, round(gap, 2)))
    return rows


def _join(*parts: str) -> str:
    return "/".join(filter(None, parts))


def main() -> int:
    """Measure, write the rows as they come; exit status 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", default="0.05,1,2.5,5,10", help="seconds per answer, separated by commas"
    )
    parser.add_argument("--cameras", default="1,2", help="numbers of cameras, separated by commas")
    parser.add_argument(
        "--span", type=float, default=24.0, help="seconds after the first answers (default: 24)"
    )
    parser.add_argument(
        "--every-topic", action="store_true", help="subscribe to every topic at 30 Hz with depth"
    )
    args = parser.parse_args()
    os.environ.update(dds_environment())
    domain = unused_domain()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        if args.every_topic:
            for item in measure_topics(args.span, domain, log):
                print(json.dumps(vars(item)), flush=True)
            return 0
        for seconds in map(float, args.seconds.split(",")):
            for cameras in map(int, args.cameras.split(",")):
                print(json.dumps(vars(measure_slow(seconds, cameras, args.span, domain, log))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
