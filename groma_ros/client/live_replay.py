"""A camera's messages played through the real node over DDS, the time of the recording on /clock, and what
the node answers."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from groma_ros.client.demo.processes import Child, dds_environment
from groma_ros.client.messages import groundings_from_message
from groma_ros.client.repeated_request import request_goals
from groma_ros.grounding.grounder import check_image
from groma_ros.io.bags import COMPRESSED as COMPRESSED_IMAGE
from groma_ros.io.bags import Bag, RecordedCamera, RecordedImage, recorded_images
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import to_nanoseconds, to_time
from groma_ros.replay.pipeline import blank_record
from groma_ros.replay.plan import ModelSettings, Played, Ran, ReplayPlan
from groma_ros.replay.records import FrameRecord, goal_record
from groma_ros.srv import SetGoals
from groma_ros.types import Goal, Grounding

START_SECONDS = 180.0
ANSWER_SECONDS = 120.0
TICK_SECONDS = 0.02
"""How often /clock goes on between two images."""
FATES = ("answered", "carried", "dropped", "skipped", "refused images")
"""What becomes of an image that the node received, by the keys of its diagnostics."""
COMPRESSED, RAW = "compressed", "raw"
MAX_DOMAIN = 232
"""The largest domain that DDS has ports for."""
_LOOPBACK = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": "", "ROS_LOCALHOST_ONLY": "1"}
"""Keeps discovery on this machine; the last one is the form of ROS 2 Humble."""
_LEADS_ELSEWHERE = (
    "ROS_DISCOVERY_SERVER",
    "FASTDDS_ENVIRONMENT_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "CYCLONEDDS_URI",
)
"""Variables by which a middleware may be told to meet other machines whatever `_LOOPBACK` says."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A played image."""

    place: int
    """Key that identifies it."""
    time: int
    """Time of recording, ns."""
    stamp: int
    """Stamp of its header, ns."""
    data: bytes
    """CDR bytes."""
    answerable: bool
    """False for an image that the node cannot read."""


@dataclass(frozen=True, eq=False)
class Heard:
    """The node's answer about an image."""

    sent: Sent
    groundings: list[Grounding]
    answered: int
    """Stamp of the image that the language model answered about, ns."""
    seconds: float
    """From playing the image to its answer."""


class Live:
    """The node in a process of its own and the other end of its topics here; a context manager.

    parameters: of the node; transport: RAW or COMPRESSED; topic: the camera's; log: file for what the node
    says; domain: of DDS, None for ROS_DOMAIN_ID or, without it, one of its own; network: let other machines
    discover it too, else only this one. Raises TimeoutError or RuntimeError with a sentence where the node
    does not start or ends, ValueError for a domain that is none.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        transport: str,
        topic: str,
        log: Path,
        domain: int | None = None,
        network: bool = False,
    ) -> None:
        if not network:
            for name in _LEADS_ELSEWHERE:
                os.environ.pop(name, None)
            os.environ.update(_LOOPBACK)
        os.environ.update(dds_environment())
        domain = _domain() if domain is None else domain
        self.facts: dict[str, str] = {}
        self._sent: dict[int, deque[tuple[Sent, float]]] = {}
        self._heard: deque[Heard] = deque()
        self._unreadable = 0
        """Images sent that the node cannot read and has not answered; their stamps are unknown here."""
        self._answers = 0
        self._node = Child(
            "groma_ros.node.main",
            _arguments(parameters, transport, topic),
            log,
            {"ROS_DOMAIN_ID": str(domain)},
        )
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._here = rclpy.create_node("groma_replay", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._here)
        self._images = self._here.create_publisher(
            CompressedImage if transport == COMPRESSED else Image, topic, 10
        )
        self._clock = self._here.create_publisher(Clock, "/clock", 10)
        self._goals = self._here.create_client(SetGoals, "/groma/set_goals")
        self._here.create_subscription(GroundingArray, "/groma/groundings", self._on_groundings, 1000)
        self._here.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def meet(self) -> None:
        """Wait until the node is active and every topic has found its other end; `facts` then hold what it
        says of itself."""

        def met() -> bool:
            ends = self._images.get_subscription_count() and self._clock.get_subscription_count()
            return bool(
                ends
                and self._here.count_publishers("/groma/groundings")
                and self._goals.service_is_ready()
                and self.facts
            )

        self._until(met, START_SECONDS, "The node did not become active")
        self._spin(0.5)  # each end sees the match a moment before the other does

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Let these goals stand. Raises ValueError with the node's sentence where it refuses them."""
        request_goals(self._goals, goals, lambda done, sentence: self._until(done, START_SECONDS, sentence))

    def play(self, images: Iterable[Sent], rate: float) -> Iterator[Heard]:
        """What the node says about images, in the order in which it says it. rate: 1 is the speed of the
        recording, at which a slow node drops images; 0 waits for each answer, so that none is dropped."""
        start = first = None
        for sent in images:
            if start is None or first is None:
                start, first = time.monotonic(), sent.time
            if rate > 0:
                self._pass_time(start, first, sent.time, rate)
            self._tick(sent.time)
            if sent.answerable:
                self._sent.setdefault(sent.stamp, deque()).append((sent, time.monotonic()))
            else:
                self._unreadable += 1
            self._images.publish(sent.data)
            if rate == 0 and sent.answerable:
                self._until(self._all_told, ANSWER_SECONDS, f"The node did not answer image {sent.place}")
            yield from self._news()
        self._until(self._settled, ANSWER_SECONDS, "The node did not come to rest")
        yield from self._news()

    def close(self) -> None:
        """End the node and leave DDS."""
        self._node.interrupt()
        self._executor.shutdown()
        self._here.destroy_node()
        self._context.shutdown()

    def _pass_time(self, start: float, first: int, until: int, rate: float) -> None:
        """Listen until a time of the recording has come, with /clock going on."""
        while (left := start + (until - first) / 1e9 / rate - time.monotonic()) > 0:
            self._spin(min(left, TICK_SECONDS))
            self._tick(min(until, first + int((time.monotonic() - start) * rate * 1e9)))

    def _tick(self, now: int) -> None:
        self._clock.publish(Clock(clock=to_time(now)))

    def _news(self) -> Iterator[Heard]:
        while self._heard:
            yield self._heard.popleft()

    def _all_told(self) -> bool:
        return not any(self._sent.values())

    def _settled(self) -> bool:
        """Two reports apart nothing moved: no image is on its way, in hand or unanswered."""
        before = dict(self.facts)
        if int(before["received"]) != sum(int(before[fate]) for fate in FATES) or self._answers != _told(
            before
        ):
            return False
        self._spin(2.2)
        return all(before[key] == self.facts[key] for key in ("received", *FATES)) and self._answers == _told(
            self.facts
        )

    def _on_groundings(self, message: GroundingArray) -> None:
        waiting = self._sent.get(to_nanoseconds(message.header.stamp))
        if waiting:
            sent, moment = waiting.popleft()
            self._answers += 1
            found = Heard(
                sent,
                groundings_from_message(message),
                to_nanoseconds(message.answered),
                time.monotonic() - moment,
            )
            self._heard.append(found)
        elif self._unreadable:
            # One that was overtaken before the node tried to read it: its boxes were carried.
            self._unreadable -= 1
            self._answers += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "groma: grounding" and any(item.key == "backend" for item in status.values):
                self.facts = {item.key: item.value for item in status.values}

    def _until(self, done: Callable[[], Any], timeout: float, sentence: str) -> None:
        end = time.monotonic() + timeout
        while not done():
            if not self._node.running:
                raise RuntimeError(f"The node ended: {self._node.last_line()}")
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{sentence} within {timeout:.0f} s; it last said: {self._node.last_line()}"
                )
            self._executor.spin_once(timeout_sec=0.1)

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _domain() -> int:
    """ROS_DOMAIN_ID, or where it is not set a domain that other processes are unlikely to use. Raises
    ValueError with a sentence for a value that is no domain."""
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if not text:
        return 1 + os.getpid() % 100
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN):
        raise ValueError(f"ROS_DOMAIN_ID is {text!r}; it must be a number from 0 to {MAX_DOMAIN}.")
    return int(text)


def _told(facts: Mapping[str, str]) -> int:
    """Images that the node published something about."""
    return int(facts["answered"]) + int(facts["carried"])


def _arguments(parameters: Mapping[str, Any], transport: str, topic: str) -> list[str]:
    """Reliable from end to end: what is dropped is then dropped by the node, which counts it, and never by
    the way there."""
    reliable = {
        f"qos_overrides.{topic}.subscription.reliability": "reliable",
        f"qos_overrides.{topic}.subscription.depth": 10,
    }
    values = {**parameters, **reliable, "image_transport": transport, "use_sim_time": True}
    settings = [part for name, value in values.items() for part in ("-p", f"{name}:={_yaml(value)}")]
    name = "image/compressed" if transport == COMPRESSED else "image"
    return ["--ros-args", *settings, "-r", f"{name}:={topic}"]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


PATIENCE = 60.0
"""Seconds that an image may wait for its own answer where no image is to be dropped."""


def play(bag: Bag, camera: RecordedCamera, plan: ReplayPlan, log: Path) -> Iterator[Played]:
    """What the node answers, in the order of the images; nothing about those it dropped. log: file for what
    the node says.

    Raises ValueError with a sentence where ROS is not there, the node refuses the goals, does not start or
    ends.
    """
    waiting: dict[int, FrameRecord] = {}

    def images() -> Iterator[Sent]:
        for image in recorded_images(bag, camera, lambda number: number % plan.every == 0):
            waiting[image.number] = blank_record(image)
            yield Sent(image.number, image.time, image.stamp, image.data, _answerable(image))

    transport = COMPRESSED if camera.type == COMPRESSED_IMAGE else RAW
    try:
        with Live(_parameters(plan), transport, camera.topic, log, plan.domain, plan.network) as live:
            live.meet()
            live.set_goals(plan.goals)
            ran = Ran(
                live.facts["backend"],
                live.facts["precision"],
                live.facts["device"],
                plan.engine.least_presence,
            )
            for heard in live.play(images(), plan.rate):
                goals = tuple(goal_record(item) for item in heard.groundings)
                asked = heard.answered == heard.sent.stamp
                record = replace(
                    waiting.pop(heard.sent.place), asked=asked, answered=heard.answered, goals=goals
                )
                yield Played(record, 1000 * heard.seconds, ran)
    except (RuntimeError, TimeoutError) as error:
        raise ValueError(str(error)) from error


def _answerable(image: RecordedImage) -> bool:
    try:
        if image.frame is not None:
            check_image(image.frame.rgb)
    except ValueError:
        return False
    return image.frame is not None


def _parameters(plan: ReplayPlan) -> dict[str, object]:
    """The node's parameters for what the plan says. Where no image is to be dropped, each waits for its own
    answer."""
    engine: ModelSettings = plan.engine
    rule = plan.rule if plan.rate > 0 else replace(plan.rule, answer_wait=PATIENCE)
    return {
        "model": str(engine.model.resolve()),
        "backend": engine.options.backend,
        "precision": engine.options.precision,
        "threads": engine.options.threads or 0,
        "min_presence": engine.least_presence,
        "max_goals": 256,
        "answer_period": float(rule.answer_period),
        "answer_wait": float(rule.answer_wait),
        "track_min_similarity": rule.min_similarity,
        "scene_change": rule.scene_change,
        "track_max_coast": rule.max_coast,
    }
