"""A client of a running node for scripts, applications and tests, in the manner of Nav2's simple commander.

with GromaClient() as groma:
    groma.wait_until_active()
    groma.find("the red mug", timeout=10.0)
    while not groma.is_done():
        time.sleep(0.1)
    print(groma.result())
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection3D

from groma_ros.action import Ground
from groma_ros.client.messages import (
    answer_spans,
    diagnostics_from_message,
    grounding_from_message,
    groundings_from_message,
)
from groma_ros.client.repeated_request import RepeatedRequest
from groma_ros.msg import Goal as GoalMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.srv import Ask, SetGoals
from groma_ros.types import FloatArray, Goal, Grounding

CAMERA = "camera "
"""Prefix of a camera's name in /diagnostics."""
QUEUE = 1000
"""Queue size of the answers, large enough for a process that is busy otherwise."""
FATES = ("answered", "carried", "dropped", "skipped", "refused images")
"""Keys of the diagnostics that count the fates of received images."""
REST_REPORTS = 3
"""Number of further reports with unchanged counts from which the node counts as at rest. Reports come once a
second, and the first may be older than the images sent last."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to all standing goals on one image."""

    stamp: int
    """Stamp of the image, nanoseconds."""
    frame_id: str
    """frame_id of the image: the camera's optical frame."""
    goals_version: int
    """Version of the goal set, as returned by `set_goals`."""
    answered: int
    """Stamp of the image that the language model answered on, nanoseconds; earlier than `stamp` if boxes are
    carried."""
    groundings: list[Grounding]
    """One answer per goal, in the order the goals were set."""


@dataclass(frozen=True, eq=False)
class FindResult:
    """Outcome of `find`."""

    success: bool
    """Whether the goal was found."""
    message: str
    """Empty on success, else the reason as a sentence."""
    stamp: int
    """Stamp of the image the result is about, nanoseconds; 0 if no image arrived."""
    frame_id: str
    grounding: Grounding
    """The last answer, even if the goal is absent."""
    detections_3d: list[Detection3D]
    """Oriented boxes in metres, in the order of the grounding's detections; empty without depth."""
    target_pose: PoseStamped | None
    """Approach pose of the best box; None without depth."""


@dataclass(frozen=True, eq=False)
class Reply:
    """Answer of `ask`, in words."""

    text: str
    grounding: Grounding
    """Boxes named by the text, and in `spans` the phrases that name them."""
    stamp: int
    frame_id: str


class GromaClient:
    """Client of one groma node; a context manager. Use it from one thread at a time.

    A background thread spins its ROS node, so `latest` is always up to date without spinning by the caller.
    """

    def __init__(
        self,
        node_name: str = "groma",
        *,
        domain_id: int | None = None,
        on_answers: Callable[[Answers], None] | None = None,
        on_diagnostics: Callable[[dict[str, str]], None] | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        """node_name: of the node, with its namespace if it has one; domain_id: None for ROS_DOMAIN_ID;
        on_answers: called in the client's thread with every answer on any camera; on_diagnostics: likewise
        with the values of every report, see `diagnostics`; on_wait: called repeatedly while a method waits;
        may raise to end the wait, for example when the node's process has ended."""
        self._name = "/" + node_name.strip("/")
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"{self._name.rpartition('/')[2]}_client", context=self._context)
        """The rclpy node of this client, for further publishers and subscriptions."""
        self._on_answers, self._on_report, self._on_wait = on_answers, on_diagnostics, on_wait
        self._changed = threading.Condition()
        self._latest: dict[str, Answers] = {}
        self._facts: dict[str, str] = {}
        self._camera_facts: dict[str, dict[str, str]] = {}
        """By camera, for a node with several."""
        self._feedback: tuple[str, Grounding | None] = ("", None)
        self._handle: Any = None
        self._outcome: Future | None = None
        self._set_goals = self.node.create_client(SetGoals, f"{self._name}/set_goals")
        self._ask = self.node.create_client(Ask, f"{self._name}/ask")
        self._state = self.node.create_client(GetState, f"{self._name}/get_state")
        self._cameras: dict[str, Any] = {}
        """The subscriptions by camera."""
        self.listen_to("")
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="groma_client", daemon=True)
        self._thread.start()

    @cached_property
    def _ground(self) -> ActionClient:
        """Created at first use: it subscribes to the feedback, and the node continues a search whose client
        has gone as long as another subscriber of the feedback exists.

        Goals, and requests for their results, are sent in the client's thread (`create_task`): rclpy's client
        has no lock, so a response that comes while another thread is still sending would be dropped."""
        return ActionClient(self.node, Ground, f"{self._name}/ground")

    def listen_to(self, camera: str) -> None:
        """Subscribe to the answers on a camera of a node with several; "" is the camera of a node with
        one."""
        if camera not in self._cameras:
            topic, keep = self._answers_topic(camera), partial(self._keep, camera)
            self._cameras[camera] = self.node.create_subscription(GroundingArray, topic, keep, QUEUE)

    def is_answering(self, camera: str) -> bool:
        """Whether the node is known to publish answers on a camera of this name."""
        return bool(self.node.count_publishers(self._answers_topic(camera)))

    def ignore(self, camera: str) -> None:
        """Unsubscribe from a camera's answers; a node does not answer images without subscribers."""
        if (subscription := self._cameras.pop(camera, None)) is not None:
            self.node.destroy_subscription(subscription)

    def wait_until_active(self, timeout: float = 60.0) -> None:
        """Wait until the node is active and its services answer. Raises TimeoutError after `timeout`
        seconds."""
        end = time.monotonic() + timeout
        clients = (self._state, self._set_goals, self._ask)
        self._until(
            lambda: all(client.service_is_ready() for client in clients) and self._ground.server_is_ready(),
            end,
            f"No node {self._name} was found",
        )
        while True:
            state = self._request(partial(self._state.call_async, GetState.Request()), end, "say its state")
            if state.current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            if time.monotonic() > end:
                raise TimeoutError(
                    f"The node {self._name} is {state.current_state.label} and did not become active."
                )
            time.sleep(0.1)

    def set_goals(self, goals: Sequence[str | Goal], timeout: float = 30.0) -> int:
        """Replace all standing goals. Returns the version of the goal set.

        Raises ValueError with the node's message if it refuses a goal, TimeoutError if it does not respond.
        """
        asked = [Goal(goal) if isinstance(goal, str) else goal for goal in goals]
        messages = [GoalMessage(text=goal.text, kind=goal.kind, min_score=goal.min_score) for goal in asked]
        send = partial(self._set_goals.call_async, SetGoals.Request(goals=messages))
        response = self._request(send, time.monotonic() + timeout, "answer to its goals")
        if not response.success:
            raise ValueError(f"The node refused the goals: {response.message}")
        return int(response.goals_version)

    def ask(
        self,
        question: str = "",
        regions: FloatArray | Sequence[Sequence[float]] = (),
        *,
        kind: str = "auto",
        session: str = "",
        camera: str = "",
        timeout: float = 60.0,
    ) -> Reply:
        """Ask for an answer in words about the newest image.

        regions: Mx4 xyxy boxes in camera pixels that the question is about; without a question they are
        described. Raises ValueError with the node's message if it refuses, TimeoutError if it does not
        respond.
        """
        boxes = [_box_message(box) for box in np.asarray(regions, np.float64).reshape(-1, 4)]
        request = Ask.Request(question=question, kind=kind, regions=boxes, session=session, camera=camera)
        future = self._ask.call_async(request)
        self._until(future.done, time.monotonic() + timeout, "The node did not answer the question")
        response = future.result()
        if not response.success:
            raise ValueError(f"The node refused the question: {response.message}")
        return Reply(
            response.answer,
            answer_spans(question, response),
            to_nanoseconds(response.header.stamp),
            response.header.frame_id,
        )

    def latest(self, camera: str = "") -> Answers | None:
        """Return the newest answers to the standing goals on a camera; None before the first."""
        with self._changed:
            return self._latest.get(camera)

    def wait_for_answers(
        self, after: int = 0, goals_version: int | None = None, camera: str = "", timeout: float = 30.0
    ) -> Answers:
        """Wait for answers on an image with a stamp later than `after` (ns), and to this goal set if one is
        given.

        Raises TimeoutError after `timeout` seconds.
        """

        def there() -> bool:
            found = self._latest.get(camera)
            return found is not None and found.stamp > after and goals_version in (None, found.goals_version)

        self._until(there, time.monotonic() + timeout, f"The node {self._name} published no such answers")
        return self._latest[camera]

    def find(self, goal: str | Goal, timeout: float = 10.0, camera: str = "", patience: float = 30.0) -> None:
        """Start a search for one goal; continue with `is_done`, `feedback` and `result`.

        timeout: seconds after which the node gives up, 0 for the next image only; patience: seconds the node
        may take to accept the goal. A search in progress is cancelled. Raises ValueError for a goal that the
        node refuses, TimeoutError if it does not respond.
        """
        self.cancel()
        wanted = Goal(goal) if isinstance(goal, str) else goal
        message = GoalMessage(text=wanted.text, kind=wanted.kind, min_score=wanted.min_score)
        seconds = int(timeout)
        request = Ground.Goal(
            goal=message,
            timeout=Duration(sec=seconds, nanosec=round((timeout - seconds) * 1e9)),
            camera=camera,
        )
        end = time.monotonic() + patience
        self._until(self._ground.server_is_ready, end, f"No node {self._name} was found")
        self._feedback = ("", None)
        send = partial(self._ground.send_goal_async, request, feedback_callback=self._on_feedback)
        sent = self._executor.create_task(send)
        self._until(lambda: sent.done() and sent.result().done(), end, "The node did not accept the goal")
        handle = sent.result().result()
        if not handle.accepted:
            raise ValueError(f"The node refused to look for {wanted.text[:80]!r}; its log says why.")
        asked = self._executor.create_task(handle.get_result_async)
        # The client's own thread does this at once, however late the goal was accepted.
        self._until(asked.done, time.monotonic() + patience, "The result was not asked for")
        self._handle, self._outcome = handle, asked.result()

    def is_done(self) -> bool:
        """Whether the search started by `find` has ended; True if there was none."""
        return self._outcome is None or self._outcome.done()

    def feedback(self) -> tuple[str, Grounding | None]:
        """Return the stage of the search ("waiting", "looking", "answered"; "" before the first) and its
        latest answer.

        After a search that answered an image these are of its result, because rclpy drops feedback that
        arrives after the result.
        """
        if self._outcome is not None and self._outcome.done():
            found = self._outcome.result().result
            if to_nanoseconds(found.header.stamp):
                return str(Ground.Feedback.ANSWERED), grounding_from_message(found.grounding)
        return self._feedback

    def result(self, timeout: float = 60.0) -> FindResult:
        """Wait for the end of the search and return its result.

        Raises RuntimeError if there was no search, TimeoutError after `timeout` seconds.
        """
        if self._outcome is None:
            raise RuntimeError("There is no search to have a result; call find first.")
        self._until(self._outcome.done, time.monotonic() + timeout, "The search did not end")
        found = self._outcome.result().result
        header: Header = found.header
        return FindResult(
            found.success,
            found.message,
            to_nanoseconds(header.stamp),
            header.frame_id,
            grounding_from_message(found.grounding),
            list(found.detections_3d),
            found.target_pose if found.target_pose.header.frame_id else None,
        )

    def cancel(self) -> None:
        """Cancel the search in progress, if any; its result then says so."""
        if self._handle is not None and not self.is_done():
            # Sent at once: `close` ends the client's thread, and nobody needs the response.
            self._handle.cancel_goal_async()

    @property
    def diagnostics(self) -> dict[str, str]:
        """Return the latest values the node published on /diagnostics, by key; empty before the first."""
        with self._changed:
            return dict(self._facts)

    @property
    def camera_diagnostics(self) -> dict[str, dict[str, str]]:
        """Return the latest values of each camera of a node with several, by camera name and key; empty for a
        node with one camera, whose values are in `diagnostics`."""
        with self._changed:
            return {name: dict(facts) for name, facts in self._camera_facts.items()}

    def close(self) -> None:
        """Cancel a search in progress and shut the ROS context down."""
        self.cancel()
        self._executor.shutdown(timeout_sec=1.0)
        self._context.try_shutdown()
        self._thread.join(2.0)
        self.node.destroy_node()

    def __enter__(self) -> GromaClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def until(self, done: Callable[[], Any], timeout: float, sentence: str) -> None:
        """Wait until `done()` is true. Raises TimeoutError with the sentence after `timeout` seconds."""
        self._until(done, time.monotonic() + timeout, sentence)

    def _request(self, send: Callable[[], Future], end: float, what: str) -> Any:
        """Return the response to a request that may be sent twice: the first response can be lost before both
        ends have discovered each other."""
        request = RepeatedRequest(send, again=2.0)
        self._until(request.done, end, f"The node {self._name} did not {what}")
        return request.result()

    def _until(self, done: Callable[[], Any], end: float, sentence: str) -> None:
        start = time.monotonic()
        with self._changed:
            while not done():
                if self._on_wait is not None:
                    self._on_wait()
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{sentence} within {max(0.0, end - start):.0f} s.")
                self._changed.wait(min(left, 0.05))

    def _spin(self) -> None:
        try:
            while self._context.ok():
                self._executor.spin_once(timeout_sec=0.5)
                with self._changed:
                    self._changed.notify_all()
        except ExternalShutdownException:
            return

    def _answers_topic(self, camera: str) -> str:
        return "/".join(filter(None, (self._name, camera.strip("/"), "groundings")))

    def _keep(self, camera: str, message: GroundingArray) -> None:
        answers = Answers(
            to_nanoseconds(message.header.stamp),
            message.header.frame_id,
            int(message.goals_version),
            to_nanoseconds(message.answered),
            groundings_from_message(message),
        )
        with self._changed:
            self._latest[camera] = answers
        if self._on_answers is not None:
            self._on_answers(answers)

    def _on_feedback(self, message: Any) -> None:
        feedback = message.feedback
        answered = feedback.stage == Ground.Feedback.ANSWERED
        self._feedback = (
            feedback.stage,
            grounding_from_message(feedback.grounding) if answered else self._feedback[1],
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = f"{self._name.strip('/')}: "
        reports = {
            name.removeprefix(own): values
            for name, values in diagnostics_from_message(message).items()
            if name.startswith(own)
        }
        if (facts := reports.get("grounding")) is None:
            return
        with self._changed:
            self._facts = facts
            self._camera_facts = {
                name.removeprefix(CAMERA).strip("/"): values
                for name, values in reports.items()
                if name.startswith(CAMERA)
            }
        if self._on_report is not None:
            self._on_report(self.diagnostics)


def images_in_progress(diagnostics: Mapping[str, str]) -> int:
    """Number of images that the node has received and neither answered nor dropped yet."""
    return int(diagnostics.get("received", 0)) - sum(int(diagnostics.get(fate, 0)) for fate in FATES)


def images_answered(diagnostics: Mapping[str, str]) -> int:
    """Number of images the node published an answer on, including those answered by motion alone."""
    return int(diagnostics.get("answered", 0)) + int(diagnostics.get("carried", 0))


class RestDetector:
    """Detects that a node has no image in progress and receives no more. It counts reports instead of time,
    because a busy node reports late."""

    def __init__(self) -> None:
        self._counts: dict[str, str] = {}
        """Reports since `_since`; empty while images are in progress."""
        self._since = 0

    def reached(self, facts: Mapping[str, str], answers: int, reports: int) -> bool:
        """Whether the node is at rest. facts: its latest report; answers, reports: numbers of those that
        arrived here."""
        counts = {key: facts[key] for key in ("received", *FATES)}
        if images_in_progress(facts) or images_answered(facts) != answers:
            self._counts = {}
        elif counts != self._counts:
            self._counts, self._since = counts, reports
        return bool(self._counts) and reports - self._since >= REST_REPORTS


def _box_message(box: NDArray[Any]) -> BoundingBox2D:
    x1, y1, x2, y2 = (float(value) for value in box)
    message = BoundingBox2D(size_x=x2 - x1, size_y=y2 - y1)
    message.center.position.x, message.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
    return message
