"""The other end of the wire: publishes camera images and goals, and keeps what the node answers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from groma_ros.action import Ground
from groma_ros.client.demo.processes import Child
from groma_ros.client.groma_client import RestDetector, images_answered
from groma_ros.client.messages import diagnostics_from_message
from groma_ros.client.repeated_request import RepeatedRequest
from groma_ros.msg import Goal, Grounding, GroundingArray
from groma_ros.node.conversions import image_message, to_nanoseconds
from groma_ros.srv import Ask, SetGoals

PATIENCE = 90.0
"""Seconds to wait for anything: a busy machine is slow, and a test that fails says so long before."""
STARTING = 300.0
"""The same for a node that starts, which takes seconds of processor time; one that ends is noticed at once.
"""
ATTEMPTS = 6
"""How often within it something is sent that may get lost."""
ROBOTS = itertools.count()
"""Numbers the robots of this process."""
FIRST_STAMP, STAMPS = 2_000_000_000, 100_000
"""Seconds of the first robot's stamps, and how many each robot has for itself: no test takes an image of the
one before for its own. They fall from robot to robot, which is a new stream for the node."""
KNOCKS: dict[Any, Any] = {
    GetState: GetState.Request(),
    ChangeState: ChangeState.Request(transition=Transition(label="none")),
    SetParameters: SetParameters.Request(),
    SetParametersAtomically: SetParametersAtomically.Request(),
    SetGoals: SetGoals.Request(goals=[Goal()]),
    Ask: Ask.Request(kind="none"),
}
"""Of each service a request that changes nothing: it is refused, and an answer to it shows that answers
arrive."""


class Robot:
    """A node in a context of its own, on one DDS domain; a context manager.

    Apart from `GromaClient`: tests look at the messages as they are, and callbacks run in the test's own
    thread while it waits, so that it may destroy clients, actions and publishers at any time.
    """

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("robot", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
        self.compressed = self.node.create_publisher(CompressedImage, "image/compressed", 10)
        self.goals = self.node.create_publisher(String, "groma/goal", 10)
        self.sent = 0
        """How many images `send` has published."""
        self.detections: list[Detection2DArray] = []
        self.groundings: list[GroundingArray] = []
        self.reports: dict[str, dict[str, str]] = {}
        """The newest values on /diagnostics by status and key."""
        self._answers_before: int | None = None
        """How many answers the node had published at the first `rest` without those that arrived here."""
        self._reports = self._reported = 0
        """Number of reports on /diagnostics; when the newest was made, ns."""
        self._stamp = FIRST_STAMP - STAMPS * next(ROBOTS)
        self._clients: dict[str, Client] = {}
        self.node.create_subscription(Detection2DArray, "groma/detections", self.detections.append, 50)
        self.node.create_subscription(GroundingArray, "groma/groundings", self.groundings.append, 50)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def diagnostics(self) -> dict[str, str]:
        """The newest values of the node `groma`; empty before the first."""
        return self.reports.get("groma: grounding", {})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.reports.update(diagnostics_from_message(message))
        self._reports += 1
        self._reported = to_nanoseconds(message.header.stamp)

    def until(self, done: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Spin until `done()` holds; an AssertionError naming `what` after `patience` seconds."""
        end = time.monotonic() + patience
        while not done():
            assert time.monotonic() < end, (
                f"{what} did not happen within {patience:.0f} s; diagnostics: {self.diagnostics}"
            )
            self._executor.spin_once(timeout_sec=0.05)

    def repeat(self, send: Callable[[], Any], done: Callable[[], Any], what: str) -> None:
        """Send until `done()` holds: best effort may lose a message, and a node may not have met this one
        yet."""
        for attempt in range(ATTEMPTS):
            send()
            try:
                return self.until(done, what, PATIENCE / ATTEMPTS)
            except AssertionError:
                if attempt == ATTEMPTS - 1:
                    raise

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def meet(self, child: Child) -> None:
        """Wait until the node process is active and every topic has found its other end."""
        self.reports.clear()  # those of a node before it

        def met() -> bool:
            assert child.running, f"the node ended: {child.output()[-2000:]}"
            listened = self.images.get_subscription_count() + self.compressed.get_subscription_count()
            heard = [self.node.count_publishers(f"/groma/{name}") for name in ("detections", "groundings")]
            return bool(
                listened
                and self.goals.get_subscription_count()
                and all(heard)
                and "backend" in self.diagnostics
            )

        self.until(met, "meeting the node", STARTING)
        self.spin(0.3)

    def count(self, key: str) -> int:
        """A count of the newest diagnostics; 0 for one that is not there yet."""
        return int(self.diagnostics.get(key, "0"))

    def count_now(self, key: str) -> int:
        """The same of a report that the node makes after this call: the newest may be older than what was
        sent before. Not for a node with a simulated clock."""
        now = time.time_ns()
        self.until(lambda: self._reported > now, "a report")
        return self.count(key)

    def settled(self, key: str) -> int:
        """A count once two reports in a row agree."""
        count = self.count_now(key)
        while (next_count := self.count_now(key)) != count:
            count = next_count
        return count

    def rest(self) -> None:
        """Wait until the node has no image in progress and gets no more, and all its answers since the `rest`
        before are here; how many there were before the first, to other robots, only its reports tell."""
        self.count_now("received")
        rest = RestDetector()

        def reached() -> bool:
            answered, before = images_answered(self.diagnostics), self._answers_before
            answers = answered if before is None else before + len(self.groundings)
            return rest.reached(self.diagnostics, answers, self._reports)

        self.until(reached, "rest")
        self._answers_before = images_answered(self.diagnostics) - len(self.groundings)

    def send_goals(self, text: str) -> None:
        """Publish a text on ~/goal and wait until the node has another set of goals."""
        before, message = self.count_now("goals_version"), String(data=text)
        self.repeat(
            lambda: self.goals.publish(message),
            lambda: self.count("goals_version") > before,
            f"the goals {text[:60]!r}",
        )

    def client(self, kind: type, name: str) -> Client:
        """The client of a service, once both ends have found each other."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
            self.knock(self._clients[name])
        return self._clients[name]

    def knock(self, *clients: Client) -> None:
        """Ask each client's service something harmless until it answers: a node drops answers to a client it
        has not met yet, so that none is lost only after the first."""
        self.until(lambda: all(client.service_is_ready() for client in clients), "meeting the services")
        requests = [
            RepeatedRequest(partial(client.call_async, KNOCKS[client.srv_type])) for client in clients
        ]
        self.until(lambda: all([request.done() for request in requests]), "a first answer of the services")

    def knock_action(self, client: ActionClient) -> None:
        """The same for the three services of `~/ground`, with an empty goal, which is refused, and for its
        feedback, with one whose time is over at once."""
        self.until(client.server_is_ready, "meeting the action")
        handle = self._first(partial(client.send_goal_async, Ground.Goal()))
        for send in (handle.get_result_async, handle.cancel_goal_async):
            self._first(send)
        brief, heard = Ground.Goal(goal=Goal(text="nothing"), timeout=Duration(nanosec=1)), list[Any]()
        self.repeat(
            lambda: client.send_goal_async(brief, feedback_callback=heard.append),
            lambda: heard,
            "a first feedback of the action",
        )

    def _first(self, send: Callable[[], Any]) -> Any:
        request = RepeatedRequest(send)
        self.until(request.done, "a first answer of the action")
        return request.result()

    def call(self, kind: type, name: str, request: Any) -> Any:
        """A service's answer."""
        future = self.client(kind, name).call_async(request)
        self.until(future.done, f"the answer of {name}")
        return future.result()

    def see(self, rgb: NDArray[Any], frame_id: str = "camera") -> Header:
        """Publish a picture until the node has published about it, and so has it; its header."""
        message = self.image(rgb, frame_id)
        stamp = to_nanoseconds(message.header.stamp)
        self.repeat(
            lambda: self.send(message), lambda: self._at(self.groundings, stamp), "an output for an image"
        )
        return message.header

    def send(self, message: Image | CompressedImage) -> None:
        """Publish an image and count it."""
        publisher = self.images if isinstance(message, Image) else self.compressed
        publisher.publish(message)
        self.sent += 1

    def image(self, rgb: NDArray[Any], frame_id: str = "camera") -> Image:
        """A raw image of uint8 HxWx3 pixels with a stamp no other has."""
        return image_message(self.header(frame_id), rgb)

    def header(self, frame_id: str = "camera") -> Header:
        """A header with a stamp that no other has."""
        self._stamp += 1
        header = Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = self._stamp, 123_456_789
        return header

    def ask(self, message: Image | CompressedImage) -> tuple[Detection2DArray, GroundingArray]:
        """Publish an image until both answers to it are here and none of its goals is pending."""
        stamp = to_nanoseconds(message.header.stamp)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            seen = len(self._at(self.detections, stamp)), len(self._at(self.groundings, stamp))

            def answered(seen: tuple[int, int] = seen) -> bool:
                counts = len(self._at(self.detections, stamp)), len(self._at(self.groundings, stamp))
                return counts[0] > seen[0] and counts[1] > seen[1]

            self.repeat(lambda: self.send(message), answered, "an answer to an image")
            found = self._at(self.groundings, stamp)[-1]
            if not any(item.status == Grounding.PENDING for item in found.groundings):
                return self._at(self.detections, stamp)[-1], found
        raise AssertionError("the goals of an image stayed pending")

    @staticmethod
    def _at(messages: list[Any], stamp: int) -> list[Any]:
        return [message for message in messages if to_nanoseconds(message.header.stamp) == stamp]

    def __enter__(self) -> Robot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.shutdown()


def start_node(
    stack: ExitStack,
    domain: int,
    log: Path,
    parameters: Mapping[str, Any],
    module: str = "groma_ros.node.main",
    arguments: Sequence[str] = (),
) -> Child:
    """The node as a process of its own, ended with the stack. module: that runs it; arguments: of the module,
    in front of ROS's."""
    values = {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()
    }
    ros = ["--ros-args", *(part for name, value in values.items() for part in ("-p", f"{name}:={value}"))]
    environment = {"ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
    return stack.enter_context(Child(module, [*arguments, *ros], log, environment))
