"""Listener of the demo: stores groundings by image, and serialized answers for the written bag."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from groma_ros.client.demo.bag import Record, Topic, topic_of
from groma_ros.client.groma_client import QUEUE, Answers, GromaClient, RestDetector, images_answered
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.types import Goal, Grounding

NODE = "groma"
TOPICS = {f"/{NODE}/detections": Detection2DArray, f"/{NODE}/groundings": GroundingArray}


class Listener:
    """Collects the answers of one groma node."""

    def __init__(self) -> None:
        self.answers: dict[int, list[Grounding]] = {}
        """Groundings by the stamp (ns) of their image."""
        self.records: list[Record] = []
        """Bytes of every answer, by the stamp of its image."""
        self.last_answer = 0.0
        """Time of the latest answer, `time.monotonic`."""
        self._rest, self._reports = RestDetector(), 0
        self._client = GromaClient(NODE, on_answers=self._on_answers, on_diagnostics=self._count_report)
        for name, kind in TOPICS.items():
            callback = partial(self._record, name, kind)
            self._client.node.create_subscription(kind, name, callback, QUEUE, raw=True)

    @property
    def topics(self) -> list[Topic]:
        """The topics of the records."""
        return [topic_of(name, kind) for name, kind in TOPICS.items()]

    @property
    def counts(self) -> dict[str, str]:
        """The newest values of the node's diagnostics."""
        return self._client.diagnostics

    @property
    def connected(self) -> bool:
        """Whether the node's topics and its diagnostics have been found."""
        return all(self._client.node.count_publishers(name) for name in TOPICS) and bool(self.counts)

    def count(self, key: str) -> int:
        """Return a count of the newest diagnostics."""
        return int(self.counts.get(key, "0"))

    @property
    def answered(self) -> int:
        """Number of frames the node answered, including those answered by motion alone."""
        return images_answered(self.counts)

    def settled(self) -> bool:
        """Whether all answers have arrived and the node has no image in progress and receives no more; poll
        it."""
        return bool(self.answers) and self._rest.reached(self.counts, len(self.answers), self._reports)

    def set_goals(self, goals: Sequence[Goal], timeout: float) -> None:
        """Set the goals. Raises ValueError with the node's message if it refuses them, TimeoutError if it
        does not respond."""
        self._client.set_goals(goals, timeout)

    def until(self, done: Callable[[], bool], timeout: float, sentence: str) -> None:
        """Wait until `done()` is true. Raises TimeoutError with the sentence after `timeout` seconds."""
        self._client.until(done, timeout, sentence)

    def spin(self, seconds: float) -> None:
        """Wait while answers are collected."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _count_report(self, facts: dict[str, str]) -> None:
        self._reports += 1

    def _on_answers(self, answers: Answers) -> None:
        self.answers = {**self.answers, answers.stamp: answers.groundings}
        self.last_answer = time.monotonic()

    def _record(self, name: str, kind: type, data: bytes) -> None:
        stamp = to_nanoseconds(deserialize_message(data, kind).header.stamp)
        self.records.append(Record(name, stamp, bytes(data)))
