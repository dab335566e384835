"""The node `groma`: lifecycle, parameters and standing goals. Other modules do the rest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String

from groma_ros.action import Ground
from groma_ros.errors import printable
from groma_ros.grounding.goals import SHOWN, check_goal
from groma_ros.grounding.grounder import Grounder
from groma_ros.node.async_condition import AsyncCondition
from groma_ros.node.conversions import goal_from_message
from groma_ros.node.detections_3d import Detector3D, detections_3d_message
from groma_ros.node.diagnostics import Reports
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import (
    GoalSet,
    NodeConfig,
    check_count,
    check_goals,
    goals_from_text,
    goals_from_texts,
    without_repetitions,
)
from groma_ros.node.model_loader import Load, ModelLoader
from groma_ros.node.parameters import Parameters, check_none_deleted, declare, with_values
from groma_ros.node.pipeline import Camera, Pipeline
from groma_ros.node.publishers import CameraOutputs, Labels
from groma_ros.node.qos_check import QosCheck
from groma_ros.node.services.ask import AskService
from groma_ros.node.services.ground import GroundAction
from groma_ros.node.services.lifecycle import LifecycleRequests
from groma_ros.node.statistics import Statistics
from groma_ros.node.subscriptions import MALFORMED, REQUESTS, CameraInputs, listen
from groma_ros.runtime.memory_check import trim_heap
from groma_ros.srv import SetGoals
from groma_ros.types import Goal, Grounding

STOP_SECONDS = 1.0
THROTTLE_SECONDS = 5.0
GOALS_LOG_SECONDS = 1.0
NOTIFY_SECONDS = 0.1
"""Period at which coroutines waiting for an answer check their timeouts."""

NO_DEPTH = "The image came without depth, so no 3D positions are available."

Step = Callable[[], object]


class NotYet(ValueError):
    """A transition that is not possible yet. The node stays in its state, and the transition can be
    retried."""


class GromaNode(LifecycleNode):
    """Answers goals and questions about camera images.

    load: loads a model by name or folder, e.g. `Grounder.load`; raises ValueError if it cannot. After a
    failed transition, `failure` holds the reason as a sentence.
    """

    def __init__(self, load: Load) -> None:
        super().__init__("groma")
        self.failure = ""
        self._shut_down = False
        settings = declare(self)
        self._config = NodeConfig(GoalSet(goals_from_texts(settings.goals)), settings)
        self._statistics = Statistics()
        self._loader = ModelLoader(load)
        self._grounder: Grounder | None = None
        self._pipeline: Pipeline | None = None
        self._abandoned: Pipeline | None = None
        self._cameras: list[Camera] = []
        self._cleanup_steps: list[Step] = []
        self._detector_3d: Detector3D | None = None
        self._condition = AsyncCondition(self)
        self.add_on_set_parameters_callback(self._on_new_parameters)
        self._reports = Reports(self)
        self._qos_check = QosCheck(self)
        # Use a steady clock, so that reports and timeouts continue while a simulated clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(NOTIFY_SECONDS, self._condition.notify_all, clock=steady)
        # These live as long as the node, so that requests still open at deactivation or cleanup get a
        # response.
        self._asks = AskService(
            self,
            self._condition,
            pipeline=lambda: self._pipeline,
            config=lambda: self._config,
            camera=self._camera_index,
            check=self._check_goal,
            refused=self._rejection_reporter("ask"),
        )
        self._action = GroundAction(
            self,
            self._condition,
            pipeline=lambda: self._pipeline,
            config=lambda: self._config,
            camera=self._camera_index,
            check=self._check_goal,
            refused=self._rejection_reporter("ground"),
            fill_3d=self._fill_3d,
        )
        self._lifecycle_requests = LifecycleRequests(self, self._ready_to_configure, self._is_active_already)

    @property
    def autostart(self) -> bool:
        """Whether the node activates itself at startup."""
        return self._config.settings.autostart

    @property
    def unconfigured(self) -> bool:
        """Whether the node can be configured."""
        return self._grounder is None and not self._shut_down

    @property
    def inactive(self) -> bool:
        """Whether the node is configured and not active."""
        return self._grounder is not None and self._pipeline is None and not self._shut_down

    @property
    def loading(self) -> bool:
        """Whether the model is being loaded."""
        return self._loader.loading

    @property
    def configure_requested(self) -> bool:
        """Whether a configure request is waiting for the model."""
        return self._lifecycle_requests.waiting > 0

    def begin_loading(self) -> None:
        """Start loading the model in a thread, unless already started; `on_configure` takes it."""
        if self._grounder is None and self._loader.begin(
            self._config.settings.model, self._config.settings.runtime_options
        ):
            self.get_logger().info(
                f"Loading the model {printable(self._config.settings.model) or 'groma-tiny (bundled)'}."
            )

    async def _ready_to_configure(self) -> None:
        """Wait until a model is available or has failed to load."""
        # Another request may have taken the model, and failed, in the meantime.
        while self.unconfigured and not self._loader.ready:
            self.begin_loading()
            await self._condition.wait_for(lambda: not self._loader.loading)

    def _is_active_already(self) -> bool:
        """Whether autostart has already done what an activate request asks for."""
        return self.autostart and self._pipeline is not None

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, check the initial goals, and open everything except the cameras."""
        return self._attempt(self._configure) or super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and start answering."""
        if (failed := self._attempt(self._activate)) is not None:
            return failed
        result = super().on_activate(state)
        self._publish_labels()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let the image in progress finish."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and close everything."""
        self._release()
        return super().on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a failed transition, so that the node can be configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate from any state, permanently."""
        self._stop()
        self._shut_down = True
        return super().on_shutdown(state)

    def finish(self) -> None:
        """Shut down, unless a lifecycle manager has already done so."""
        if not self._shut_down:
            self.trigger_shutdown()

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn | None:
        """Run a step of a transition. Returns None on success. Otherwise logs the reason, keeps it in
        `failure` and returns ERROR, or FAILURE for `NotYet`."""
        try:
            step()
        except Exception as error:  # rclpy would swallow it without a trace
            plain = isinstance(error, (ValueError, OSError, ImportError))
            self.failure = str(error) if plain else f"{type(error).__name__}: {error}"
            self.get_logger().error(self.failure)
            return (
                TransitionCallbackReturn.FAILURE
                if isinstance(error, NotYet)
                else TransitionCallbackReturn.ERROR
            )
        self.failure = ""
        return None

    def _configure(self) -> None:
        settings = self._config.settings
        self.begin_loading()
        self._grounder = self._loader.take()
        assert self._grounder.runtime is not None
        self.get_logger().info(self._grounder.runtime.reason)
        self._reports.loaded(self._grounder.runtime, self._grounder.familiarity)
        self._check_goals(self._config.goal_set.goals, settings)
        for name in settings.cameras or ("",):
            outputs = CameraOutputs(self, name)
            self._cleanup_steps.append(outputs.destroy)
            self._cameras.append(Camera(name, outputs, Statistics()))
        self._detector_3d = Detector3D(self, settings)
        self._cleanup_steps.append(self._close_detector_3d)
        self._labels = Labels(self)
        service = self.create_service(SetGoals, "~/set_goals", self._on_set_goals, qos_profile=REQUESTS)
        topic = listen(self, String, "~/goal", self._on_goal, self._rejection_reporter("goal", MALFORMED), 10)
        self._cleanup_steps.append(self._labels.destroy)
        self._cleanup_steps += [
            lambda: self.destroy_service(service),
            lambda: self.destroy_subscription(topic),
        ]

    def _activate(self) -> None:
        if self._abandoned is not None and self._abandoned.alive:
            # A grounder can serve only one thread at a time.
            raise NotYet(
                "The image in progress when the node was deactivated is still being answered; activate again "
                "in a moment."
            )
        assert self._grounder is not None
        self._abandoned = None
        assert self._detector_3d is not None
        self._detector_3d.forget()
        self._pipeline = Pipeline(
            self._grounder,
            self._cameras,
            lambda: self._config,
            self._report_rejection,
            self._condition.notify_all,
            self._detector_3d,
            self._statistics,
        )
        settings = self._config.settings
        for index, camera in enumerate(self._cameras):
            camera.inputs = CameraInputs(
                self,
                camera.name,
                settings,
                partial(self._on_image, index),
                partial(self._report_rejection, camera),
            )
        topics = [camera.inputs.topic for camera in self._cameras if camera.inputs is not None]
        self.get_logger().info(f"Active; subscribed to {', '.join(topics)}.")

    def _stop(self) -> None:
        for camera in self._cameras:
            if camera.inputs is not None:
                camera.inputs.destroy()
                camera.inputs = None
        if self._pipeline is None:
            return
        if not self._pipeline.stop(STOP_SECONDS):
            self.get_logger().warning(
                f"The image in progress did not finish within {STOP_SECONDS} s and is abandoned."
            )
            self._abandoned = self._pipeline
        self._pipeline = None
        self._condition.notify_all()

    def _release(self) -> None:
        self._stop()
        for close in self._cleanup_steps:
            close()
        self._cleanup_steps.clear()
        self._cameras.clear()
        self._asks.clear()
        self._loader.forget()
        self._reports.loaded(None)
        # A hanging language model keeps its grounder, so the next configuration loads a new one.
        self._grounder = self._abandoned = None
        # The parts of a pipeline refer to each other; without an explicit collection several models could
        # accumulate.
        gc.collect()
        trim_heap()

    # Executor callbacks. They never run the model; `Pipeline.put` may publish answers carried by motion.

    def _on_image(self, index: int, message: Any) -> None:
        camera = self._cameras[index]
        camera.statistics.received()
        if self._pipeline is None or message is None:
            return
        if camera.due(self.get_clock().now().nanoseconds, self._config.settings.max_rate):
            self._pipeline.put(index, message)
        else:
            self._pipeline.skip(index, message)

    def _on_goal(self, message: String) -> None:
        try:
            self._replace_goals(goals_from_text(message.data))
        except ValueError as error:
            self._rejection_reporter("goal", "text")(str(error))

    def _on_set_goals(self, request: SetGoals.Request, response: SetGoals.Response) -> SetGoals.Response:
        try:
            self._replace_goals([goal_from_message(goal) for goal in request.goals])
            response.success = True
        except ValueError as error:
            response.message = str(error)
            self._rejection_reporter("goal", "text")(str(error))
        response.goals_version = self._config.goal_set.version
        return response

    def _on_new_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            check_none_deleted(changes)
            settings = with_values(self._config.settings, changes)
            if self._detector_3d is not None:
                self._detector_3d.configure(settings)
            if any(change.name == "goals" for change in changes):
                self._replace_goals(goals_from_texts(settings.goals), settings)
            else:
                if any(change.name == "max_goals" for change in changes):
                    check_count(self._config.goal_set.goals, settings.max_goals)
                self._config = NodeConfig(self._config.goal_set, settings)
                if any(change.name == "min_score" for change in changes):
                    self._publish_labels()
        except (ValueError, ImportError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # Goals

    def _replace_goals(self, goals: Sequence[Goal], settings: Parameters | None = None) -> None:
        """Replace the standing goals. Raises ValueError if one of them cannot be asked; then nothing
        changes."""
        settings, goals = settings or self._config.settings, without_repetitions(goals)
        self._check_goals(goals, settings)
        self._config = NodeConfig(self._config.goal_set.replaced(goals), settings)
        self._publish_labels()
        texts = "; ".join(printable(goal.text, SHOWN) for goal in goals) or "none"
        # Goals may be replaced at the rate of the images.
        self.get_logger().info(
            f"Goals, set {self._config.goal_set.version}: {texts}", throttle_duration_sec=GOALS_LOG_SECONDS
        )

    def _publish_labels(self) -> None:
        if self._pipeline is not None:
            self._labels.publish(self._config.goal_set, self._config.settings.min_score, self._model)

    @property
    def _model(self) -> str:
        return f"Groma, {self._config.settings.model or 'groma-tiny'}"

    def _check_goals(self, goals: Sequence[Goal], settings: Parameters) -> None:
        check_goals(goals, settings.max_goals, self._check_goal)

    def _check_goal(self, goal: Goal) -> None:
        (self._grounder.check if self._grounder else check_goal)(goal)

    def _camera_index(self, name: str) -> int | None:
        """Index of the camera with this name, None for "" (any camera). Raises ValueError for an unknown
        one."""
        if not name:
            return None
        names = [camera.name.strip("/") for camera in self._cameras]
        if name.strip("/") not in names:
            known = ", ".join(filter(None, names)) or "one without a name"
            raise ValueError(
                f"There is no camera {name[:80]!r}; the cameras are {known} (parameter cameras)."
            )
        return names.index(name.strip("/"))

    def _close_detector_3d(self) -> None:
        if self._detector_3d is not None:
            self._detector_3d.destroy()
        self._detector_3d = None

    def _fill_3d(self, result: Ground.Result, view: ImageResult, grounding: Grounding) -> None:
        """Fill the 3D part of a result, or set its message to the reason why there is none."""
        if view.frame.depth is None or self._detector_3d is None:
            result.message = view.without_depth or NO_DEPTH
            return
        sentences: list[str] = []

        def refuse(cause: str, sentence: str) -> None:
            self._statistics.refused("depth", cause)
            sentences.append(sentence)

        detections = self._detector_3d.of(view, [grounding], self._config.settings, refuse)
        result.detections_3d = detections_3d_message(detections).detections
        if detections.target is not None:
            result.target_pose = detections.target
        else:
            result.message = sentences[0] if sentences else NO_DEPTH

    # Reports. Every refusal is counted; the log is throttled, separately for images and requests.

    def _report(self) -> None:
        now = self.get_clock().now()
        questions = len(self._pipeline.requests) if self._pipeline is not None else None
        loading = self._loader.seconds if self.loading else None
        self._reports.publish(
            now, self._config, self._cameras, self._statistics, questions, self.failure, loading
        )
        self._qos_check.look()

    def _report_rejection(self, camera: Camera, kind: str, cause: str, sentence: str) -> None:
        camera.statistics.refused(kind, cause)
        name = f"Camera {camera.name}: " if camera.name else ""
        self.get_logger().warning(printable(name + sentence), throttle_duration_sec=THROTTLE_SECONDS)

    def _rejection_reporter(self, kind: str, cause: str = "request") -> Callable[[str], None]:
        def refuse(sentence: str) -> None:
            self._statistics.refused(kind, cause)
            self.get_logger().warning(printable(sentence), throttle_duration_sec=THROTTLE_SECONDS)

        return refuse
