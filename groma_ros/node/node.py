"""The node `groma`: callbacks that only store, a worker that answers the newest frame, and a lifecycle around both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from groma_ros.draw import draw_groundings
from groma_ros.grounding.goals import check_goal
from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import (
    detections_message,
    diagnostic_message,
    frame_from_image,
    goal_from_message,
    groundings_message,
    image_message,
)
from groma_ros.node.goals import GoalSet, check_goals, goals_from_text, goals_from_texts
from groma_ros.node.images import ImageError
from groma_ros.node.parameters import Parameters, declare, with_values
from groma_ros.node.statistics import Statistics
from groma_ros.node.worker import Arrival, Worker
from groma_ros.srv import SetGoals
from groma_ros.types import Frame, Goal, Grounding

STOP_SECONDS = 1.5
THROTTLE_SECONDS = 5.0


class GromaNode(LifecycleNode):
    """Answers the standing goals on camera images.

    load: the model's folder ("" for the one that ships) to a Grounder; raises ValueError with a sentence. After a transition
    that failed, `failure` holds that sentence.
    """

    def __init__(self, load: Callable[[str, str], Grounder]) -> None:
        super().__init__("groma")
        self.failure = ""
        self._final = False
        self._load = load
        self._settings = declare(self)
        self._goal_set = GoalSet(goals_from_texts(self._settings.goals))
        self._statistics = Statistics()
        self._reported_refusals = 0
        self._grounder: Grounder | None = None
        self._worker: Worker | None = None
        self._abandoned: Worker | None = None
        self.add_on_set_parameters_callback(self._set_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: the report comes every second even while a simulated clock stands still.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def autostart(self) -> bool:
        """Whether the node was told to go to active by itself."""
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, check the goals it starts with, and open the publishers."""
        return self._attempt(self._configure) or super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the camera and to goals, and start the worker."""
        return self._attempt(self._activate) or super().on_activate(state)

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn | None:
        """Take a step of a transition: None when it worked, FAILURE with the sentence kept and logged when not."""
        try:
            step()
        except Exception as error:  # rclpy would swallow it, and nobody would learn why the transition failed
            plain = isinstance(error, (ValueError, OSError, ImportError))
            self.failure = str(error) if plain else f"{type(error).__name__}: {error}"
            self.get_logger().error(self.failure)
            return TransitionCallbackReturn.FAILURE
        return None

    def _configure(self) -> None:
        self._grounder = self._load(self._settings.model, self._settings.backend)
        assert self._grounder.runtime is not None
        self.get_logger().info(self._grounder.runtime.reason)
        self._check(self._goal_set.goals, self._settings)
        overridable = QoSOverridingOptions.with_default_policies()
        self._detections = self.create_lifecycle_publisher(Detection2DArray, "~/detections", 10, qos_overriding_options=overridable)
        self._groundings = self.create_lifecycle_publisher(GroundingArray, "~/groundings", 10, qos_overriding_options=overridable)
        self._debug = self.create_lifecycle_publisher(Image, "~/debug/image", 1, qos_overriding_options=overridable)

    def _activate(self) -> None:
        if self._abandoned is not None and self._abandoned.alive:
            # A grounder serves one thread at a time.
            raise ValueError("The frame in hand when the node was deactivated is still being answered; activate again in a moment.")
        kind, topic = (Image, "image") if self._settings.image_transport == "raw" else (CompressedImage, "image/compressed")
        overridable = QoSOverridingOptions.with_default_policies()
        self._image_input = self.create_subscription(
            kind, topic, self._on_image, qos_profile_sensor_data, qos_overriding_options=overridable
        )
        self._goal_input = self.create_subscription(String, "~/goal", self._on_goal, 10)
        self._goal_service = self.create_service(SetGoals, "~/set_goals", self._on_set_goals)
        self._worker = Worker(self._answer, self._failed, self._statistics.dropped)
        self.get_logger().info(f"Active: listens to {self._image_input.topic_name} and {self._goal_input.topic_name}.")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and let the frame in hand finish."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model and the publishers back."""
        for publisher in (self._detections, self._groundings, self._debug):
            self.destroy_lifecycle_publisher(publisher)
        self._grounder = None
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same as deactivating, from any state, and for good."""
        self._stop()
        self._final = True
        return super().on_shutdown(state)

    def finish(self) -> None:
        """Shut down, unless a manager has done so already."""
        if not self._final:
            self.trigger_shutdown()

    def _stop(self) -> None:
        if self._worker is None:
            return
        self.destroy_subscription(self._image_input)
        self.destroy_subscription(self._goal_input)
        self.destroy_service(self._goal_service)
        if not self._worker.stop(STOP_SECONDS):
            self.get_logger().warning(f"The frame in hand did not finish within {STOP_SECONDS} s and is abandoned.")
            self._abandoned = self._worker
        self._worker = None

    # Callbacks of the executor: they only store.

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.received()
        if self._worker is not None:
            self._worker.put(message)

    def _on_goal(self, message: String) -> None:
        try:
            self._replace_goals(goals_from_text(message.data))
        except ValueError as error:
            self._refuse_goal(str(error))

    def _on_set_goals(self, request: SetGoals.Request, response: SetGoals.Response) -> SetGoals.Response:
        try:
            self._replace_goals([goal_from_message(goal) for goal in request.goals])
            response.success = True
        except ValueError as error:
            response.message = str(error)
            self._refuse_goal(str(error))
        response.goals_version = self._goal_set.version
        return response

    def _set_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            parameters = with_values(self._settings, changes)
            if any(change.name == "goals" for change in changes):
                self._replace_goals(goals_from_texts(parameters.goals), parameters)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = parameters
        return SetParametersResult(successful=True)

    def _replace_goals(self, goals: Sequence[Goal], parameters: Parameters | None = None) -> None:
        """Let these goals stand. Raises ValueError with a sentence if one cannot be asked; then the former ones stand."""
        self._check(goals, parameters or self._settings)
        self._goal_set = self._goal_set.replaced(goals)
        self.get_logger().info(f"Goals, set {self._goal_set.version}: {'; '.join(goal.text for goal in goals) or 'none'}")

    def _check(self, goals: Sequence[Goal], parameters: Parameters) -> None:
        check_goals(goals, parameters.max_goals, self._grounder.check if self._grounder else check_goal)

    def _report(self) -> None:
        goal_set, counts = self._goal_set, self._statistics.snapshot()
        refusals = sum(counts.refused.values())
        active = self._worker is not None
        summary = f"answers {len(goal_set.goals)} goals" if active else "not active"
        if refusals > self._reported_refusals:
            summary += f", {refusals - self._reported_refusals} messages refused since the last report"
        level = DiagnosticStatus.OK if active and refusals == self._reported_refusals else DiagnosticStatus.WARN
        self._reported_refusals = refusals
        name = f"{self.get_fully_qualified_name().strip('/')}: grounding"
        report = DiagnosticArray()
        report.header.stamp = self.get_clock().now().to_msg()
        report.status = [diagnostic_message(name, level, summary, len(goal_set.goals), goal_set.version, counts)]
        self._diagnostics.publish(report)

    # The worker's thread.

    def _answer(self, arrival: Arrival) -> None:
        start, goal_set, parameters = perf_counter(), self._goal_set, self._settings
        try:
            frame = frame_from_image(arrival.message)
            decoded = perf_counter()
            groundings = self._ground(frame, goal_set, parameters)
        except ValueError as error:
            self._refuse_image(error.cause if isinstance(error, ImageError) else "content", str(error))
            return
        grounded = perf_counter()
        self._publish(arrival.message.header, frame, groundings, goal_set.version, parameters)
        done = perf_counter()
        stages = {
            "wait": start - arrival.time,
            "decode": decoded - start,
            "ground": grounded - decoded,
            "publish": done - grounded,
        }
        self._statistics.answered({**stages, "total": done - arrival.time})

    def _ground(self, frame: Frame, goal_set: GoalSet, parameters: Parameters) -> list[Grounding]:
        assert self._grounder is not None, "the worker lives only while the node is configured"
        self._grounder.min_presence = parameters.min_presence
        goals = [replace(goal, min_score=max(goal.min_score, parameters.min_score)) for goal in goal_set.goals]
        return self._grounder.ground(frame, goals)

    def _publish(self, header: Header, frame: Frame, groundings: Sequence[Grounding], goals_version: int, parameters: Parameters) -> None:
        self._detections.publish(detections_message(header, groundings))
        self._groundings.publish(groundings_message(header, groundings, goals_version))
        if parameters.debug_image and self._debug.get_subscription_count() > 0:
            self._debug.publish(image_message(header, draw_groundings(frame.rgb, groundings)))

    # Refusals are counted one by one and logged at most every few seconds, images and goals apart.

    def _failed(self, error: Exception) -> None:
        self._refuse_image("failure", f"A frame could not be answered: {type(error).__name__}: {error}")

    def _refuse_image(self, cause: str, sentence: str) -> None:
        self._statistics.refused("image", cause)
        self.get_logger().warning(sentence, throttle_duration_sec=THROTTLE_SECONDS)

    def _refuse_goal(self, sentence: str) -> None:
        self._statistics.refused("goal", "text")
        self.get_logger().warning(sentence, throttle_duration_sec=THROTTLE_SECONDS)
