"""The demonstration's own end of the wire: sends the goals, keeps the answers and what the node counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from groma_ros.client.demo.bag import Record, Topic, topic_of
from groma_ros.client.demo.report import groundings_from_message
from groma_ros.client.repeated_request import request_goals
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.srv import SetGoals
from groma_ros.types import Goal, Grounding

NODE = "groma"


class Listener:
    """Listens to one groma node.

    answers: groundings by the stamp (ns) of their image; records: every answer's bytes, at its image's stamp;
    counts: the newest diagnostics; last_answer: `time.monotonic` seconds of the newest answer.
    """

    def __init__(self) -> None:
        self.answers: dict[int, list[Grounding]] = {}
        self.records: list[Record] = []
        self.counts: dict[str, str] = {}
        self.last_answer = 0.0
        self._node = rclpy.create_node("groma_demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._goals = self._node.create_client(SetGoals, f"/{NODE}/set_goals")
        self._topics = {
            f"/{NODE}/detections": (Detection2DArray, self._on_detections),
            f"/{NODE}/groundings": (GroundingArray, self._on_groundings),
        }
        for name, (kind, callback) in self._topics.items():
            self._node.create_subscription(kind, name, callback, 100, raw=True)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def topics(self) -> list[Topic]:
        """The topics of the records."""
        return [topic_of(name, kind) for name, (kind, _) in self._topics.items()]

    @property
    def connected(self) -> bool:
        """Whether the node's topics, its goal service and its diagnostics have been found."""
        heard = [self._node.count_publishers(name) for name in self._topics]
        return all(heard) and self._goals.service_is_ready() and bool(self.counts)

    def count(self, key: str) -> int:
        """A count of the newest diagnostics."""
        return int(self.counts.get(key, "0"))

    @property
    def answered(self) -> int:
        """Frames the node answered, those by motion alone among them."""
        return self.count("answered") + self.count("carried")

    @property
    def settled(self) -> bool:
        """Whether the node has nothing in hand and every answer it gave has arrived here."""
        done = sum(
            self.count(fate) for fate in ("answered", "carried", "dropped", "skipped", "refused images")
        )
        return self.count("received") == done and len(self.answers) == self.answered

    def set_goals(self, goals: Sequence[Goal], timeout: float) -> None:
        """Let these goals stand. Raises ValueError with the node's sentence where it refuses them,
        TimeoutError for no answer."""
        request_goals(self._goals, goals, lambda done, sentence: self.until(done, timeout, sentence))

    def until(self, done: Callable[[], bool], timeout: float, sentence: str) -> None:
        """Listen until `done()`. Raises TimeoutError with the sentence after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"{sentence} within {timeout:.0f} s.")
            self.spin(0.1)

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        """Leave DDS."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _on_groundings(self, data: bytes) -> None:
        message = deserialize_message(data, GroundingArray)
        stamp = to_nanoseconds(message.header.stamp)
        self.answers[stamp] = groundings_from_message(message)
        self.records.append(Record(f"/{NODE}/groundings", stamp, bytes(data)))
        self.last_answer = time.monotonic()

    def _on_detections(self, data: bytes) -> None:
        stamp = to_nanoseconds(deserialize_message(data, Detection2DArray).header.stamp)
        self.records.append(Record(f"/{NODE}/detections", stamp, bytes(data)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(NODE):
                self.counts = {item.key: item.value for item in status.values}
