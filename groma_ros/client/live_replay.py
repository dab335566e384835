"""Play a camera's recorded messages to the real node over DDS, with the time of the recording on /clock, and
collect its answers."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.client.groma_client import Answers, GromaClient, RestDetector
from groma_ros.grounding.grounder import check_image
from groma_ros.io.bags import COMPRESSED as COMPRESSED_IMAGE
from groma_ros.io.bags import Bag, RecordedCamera, RecordedImage, recorded_images
from groma_ros.node.conversions import to_time
from groma_ros.replay.pipeline import blank_record
from groma_ros.replay.plan import ModelRuntime, ModelSettings, Played, ReplayPlan
from groma_ros.replay.records import FrameRecord, goal_record
from groma_ros.types import Goal, Grounding

START_SECONDS = 180.0
ANSWER_SECONDS = 120.0
TICK_SECONDS = 0.02
"""Period of /clock between two images, seconds."""
COMPRESSED, RAW = "compressed", "raw"
MAX_DOMAIN = 232
"""The largest domain for which DDS has ports."""
_LOOPBACK = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": "", "ROS_LOCALHOST_ONLY": "1"}
"""Restricts discovery to this machine; the last variable is for ROS 2 Humble."""
_DISCOVERY_SETTINGS = (
    "ROS_DISCOVERY_SERVER",
    "FASTDDS_ENVIRONMENT_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "CYCLONEDDS_URI",
)
"""Variables that can make a middleware discover other machines in spite of `_LOOPBACK`."""


@dataclass(frozen=True, eq=False)
class PlayedImage:
    """An image to publish."""

    number: int
    """Identifies the image."""
    time: int
    """Time of recording, ns."""
    stamp: int
    """Stamp of its header, ns."""
    data: bytes
    """CDR bytes."""
    answerable: bool
    """False for an image that the node cannot read."""


@dataclass(frozen=True, eq=False)
class ImageAnswer:
    """The node's answer about an image."""

    image: PlayedImage
    groundings: list[Grounding]
    answered: int
    """Stamp of the image that the language model answered about, ns."""
    seconds: float
    """From publishing the image to receiving its answer."""


class LiveNode:
    """The node in a separate process, and a client that plays images to it; a context manager.

    parameters: of the node; transport: RAW or COMPRESSED; topic: the camera's; log: file for the output of
    the node; domain: of DDS, None for ROS_DOMAIN_ID or, if that is not set, an unused one; network: let other
    machines discover it, else only this one. Raises TimeoutError or RuntimeError with a sentence if the node
    does not start or exits, ValueError for an invalid domain.
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
            for name in _DISCOVERY_SETTINGS:
                os.environ.pop(name, None)
            os.environ.update(_LOOPBACK)
        os.environ.update(dds_environment())
        domain = _domain() if domain is None else domain
        self._unanswered: dict[int, deque[tuple[PlayedImage, float]]] = {}
        """Readable images without an answer, by stamp, with the time they were sent (`time.monotonic`)."""
        self._unreadable = 0
        """Number of images sent that the node cannot read and has not answered; their stamps are unknown
        here."""
        self._received = 0
        """Number of answers so far."""
        self._arrived: deque[tuple[Answers, float]] = deque()
        """Answers with the time of their arrival (`time.monotonic`), filled by the client's thread."""
        self._ready: deque[ImageAnswer] = deque()
        """Answers that `play` has not yielded yet."""
        self._reports = 0
        """Number of diagnostics so far, counted by the client's thread."""
        self._node = Child(
            "groma_ros.node.main",
            _arguments(parameters, transport, topic),
            log,
            {"ROS_DOMAIN_ID": str(domain)},
        )
        self._client = GromaClient(
            domain_id=domain,
            on_answers=lambda answers: self._arrived.append((answers, time.monotonic())),
            on_diagnostics=self._count_report,
            on_wait=self._check_running,
        )
        self._images = self._client.node.create_publisher(
            CompressedImage if transport == COMPRESSED else Image, topic, 10
        )
        self._clock = self._client.node.create_publisher(Clock, "/clock", 10)

    @property
    def diagnostics(self) -> dict[str, str]:
        """The latest values of the node's diagnostics."""
        return self._client.diagnostics

    def wait_until_ready(self) -> None:
        """Wait until the node is active, node and client have discovered each other's topics, and the
        diagnostics name the backend."""

        def ready() -> bool:
            return bool(
                self._images.get_subscription_count()
                and self._clock.get_subscription_count()
                and self._client.node.count_publishers("/groma/groundings")
                and "backend" in self.diagnostics
            )

        with self._log_in_timeouts():
            self._client.wait_until_active(START_SECONDS)
            self._client.until(ready, START_SECONDS, "The node did not become active")
        time.sleep(0.5)  # each end sees the match slightly earlier than the other does

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Set the goals. Raises ValueError with the node's message if it refuses them."""
        with self._log_in_timeouts():
            self._client.set_goals(goals, START_SECONDS)

    def play(self, images: Iterable[PlayedImage], rate: float) -> Iterator[ImageAnswer]:
        """Publish images and yield the node's answers in the order of arrival.

        rate: 1 is the speed of the recording, at which a slow node drops images; 0 waits for each answer, so
        that none is dropped.
        """
        start = first = None
        for image in images:
            if start is None or first is None:
                start, first = time.monotonic(), image.time
            if rate > 0:
                self._pass_time(start, first, image.time, rate)
            self._tick(image.time)
            if image.answerable:
                self._unanswered.setdefault(image.stamp, deque()).append((image, time.monotonic()))
            else:
                self._unreadable += 1
            self._images.publish(image.data)
            if rate == 0 and image.answerable:
                self._wait(self._all_answered, f"The node did not answer image {image.number}")
            yield from self._answers()
        self._wait_until_settled()
        yield from self._answers()

    def close(self) -> None:
        """Stop the node and leave DDS."""
        self._node.interrupt()
        self._client.close()

    def _pass_time(self, start: float, first: int, until: int, rate: float) -> None:
        """Wait for a time of the recording while publishing /clock."""
        while (left := start + (until - first) / 1e9 / rate - time.monotonic()) > 0:
            time.sleep(min(left, TICK_SECONDS))
            self._tick(min(until, first + int((time.monotonic() - start) * rate * 1e9)))

    def _tick(self, now: int) -> None:
        self._clock.publish(Clock(clock=to_time(now)))

    def _answers(self) -> Iterator[ImageAnswer]:
        self._match()
        while self._ready:
            yield self._ready.popleft()

    def _match(self) -> None:
        """Match the answers that arrived with the images they are about."""
        while self._arrived:
            answers, moment = self._arrived.popleft()
            if waiting := self._unanswered.get(answers.stamp):
                image, sent = waiting.popleft()
                self._ready.append(ImageAnswer(image, answers.groundings, answers.answered, moment - sent))
            elif self._unreadable:
                # The image was superseded before the node read it: its boxes were carried.
                self._unreadable -= 1
            else:
                continue
            self._received += 1

    def _all_answered(self) -> bool:
        self._match()
        return not any(self._unanswered.values())

    def _wait_until_settled(self) -> None:
        """Wait until every image is answered or dropped, and several reports show no change."""
        rest = RestDetector()

        def done() -> bool:
            self._match()
            return rest.reached(self.diagnostics, self._received, self._reports)

        self._wait(done, "The node did not come to rest")

    def _count_report(self, facts: dict[str, str]) -> None:
        self._reports += 1

    def _wait(self, done: Callable[[], bool], sentence: str) -> None:
        with self._log_in_timeouts():
            self._client.until(done, ANSWER_SECONDS, sentence)

    def _check_running(self) -> None:
        if not self._node.running:
            raise RuntimeError(f"The node ended: {self._node.last_line()}")

    @contextmanager
    def _log_in_timeouts(self) -> Iterator[None]:
        """Add the last line of the node's log to a TimeoutError."""
        try:
            yield
        except TimeoutError as error:
            sentence = str(error).removesuffix(".")
            raise TimeoutError(f"{sentence}; it last said: {self._node.last_line()}") from None

    def __enter__(self) -> LiveNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _domain() -> int:
    """Return ROS_DOMAIN_ID or, if it is not set, a domain that no other process uses. Raises ValueError for
    an invalid value."""
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if not text:
        return unused_domain()
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN):
        raise ValueError(f"ROS_DOMAIN_ID is {text!r}; it must be a number from 0 to {MAX_DOMAIN}.")
    return int(text)


def _arguments(parameters: Mapping[str, Any], transport: str, topic: str) -> list[str]:
    """Arguments of the node's process. Transport is reliable end to end, so that only the node drops images,
    and counts them."""
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
"""Maximum time in seconds an image waits for its own answer if no image may be dropped."""


def play(bag: Bag, camera: RecordedCamera, plan: ReplayPlan, log: Path) -> Iterator[Played]:
    """Yield the node's answers in the order of the images, without those it dropped. log: file for the output
    of the node.

    Raises ValueError if ROS is missing, or the node refuses the goals, does not start or exits.
    """
    waiting: dict[int, FrameRecord] = {}

    def images() -> Iterator[PlayedImage]:
        for image in recorded_images(bag, camera, lambda number: number % plan.every == 0):
            waiting[image.number] = blank_record(image)
            yield PlayedImage(image.number, image.time, image.stamp, image.data, _answerable(image))

    transport = COMPRESSED if camera.type == COMPRESSED_IMAGE else RAW
    try:
        with LiveNode(_parameters(plan), transport, camera.topic, log, plan.domain, plan.network) as live:
            live.wait_until_ready()
            live.set_goals(plan.goals)
            facts = live.diagnostics
            runtime = ModelRuntime(
                facts["backend"], facts["precision"], facts["device"], plan.engine.least_presence
            )
            for answer in live.play(images(), plan.rate):
                goals = tuple(goal_record(item) for item in answer.groundings)
                asked = answer.answered == answer.image.stamp
                record = replace(
                    waiting.pop(answer.image.number), asked=asked, answered=answer.answered, goals=goals
                )
                yield Played(record, 1000 * answer.seconds, runtime)
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
    """Return the node's parameters for a plan. If no image may be dropped, each waits for its own answer."""
    engine: ModelSettings = plan.engine
    tracking = plan.tracking if plan.rate > 0 else replace(plan.tracking, answer_wait=PATIENCE)
    return {
        "model": str(engine.model.resolve()),
        "backend": engine.options.backend,
        "precision": engine.options.precision,
        "threads": engine.options.threads or 0,
        "min_presence": engine.least_presence,
        "max_goals": 256,
        "answer_period": float(tracking.answer_period),
        "answer_wait": float(tracking.answer_wait),
        "track_min_similarity": tracking.min_similarity,
        "scene_change": tracking.scene_change,
        "track_max_coast": tracking.max_coast,
    }
