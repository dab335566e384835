"""The action `~/ground`: search for one goal until it is found, the timeout expires or the caller cancels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from groma_ros.action import Ground
from groma_ros.grounding.goals import MAX_CHARACTERS, check_standing
from groma_ros.node.async_condition import AsyncCondition, Timeout
from groma_ros.node.conversions import NANOSECONDS, goal_from_message, grounding_message
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import NodeConfig
from groma_ros.node.pipeline import Pipeline
from groma_ros.node.request_queue import FrameRequest, NoAnswer, Wanted
from groma_ros.node.services.ask import open_pipeline
from groma_ros.node.subscriptions import REQUESTS
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Goal, Grounding

LISTENERS_SECONDS = 0.5
"""Period of the checks whether clients are still present."""
MEETING_SECONDS = 2.0
"""Time allowed for discovering a goal's client, whose topic may appear after the goal itself."""
RESULT_SECONDS = 60
"""Time for which a result can be requested; rclpy's default of 15 minutes would let results accumulate."""


@dataclass(eq=False)
class _Search:
    """A goal being searched for."""

    handle: ServerGoalHandle
    goal: Goal
    camera: int | None
    timeout: Timeout | None
    """None: only the next image is searched."""
    result: Ground.Result
    """The result so far."""
    listeners: frozenset[bytes] = frozenset()
    """Subscribers of the feedback that were there when the goal was new and still are; its client is one of
    them."""
    since: float = field(default_factory=time.monotonic)
    """Time of the goal's arrival, `time.monotonic`."""


class GroundAction:
    """Serves `~/ground` for the lifetime of the node. Arguments as for `AskService`; fill_3d: fills the 3D
    part of a result, in the language model's thread."""

    def __init__(
        self,
        node: Node,
        condition: AsyncCondition,
        pipeline: Callable[[], Pipeline | None],
        config: Callable[[], NodeConfig],
        camera: Callable[[str], int | None],
        check: Callable[[Goal], None],
        refused: Callable[[str], None],
        fill_3d: Callable[[Ground.Result, ImageResult, Grounding], None],
    ) -> None:
        self._node, self._condition, self._pipeline, self._config = node, condition, pipeline, config
        self._camera, self._check, self._refused, self._fill_3d = camera, check, refused, fill_3d
        self._server = ActionServer(
            node,
            Ground,
            "~/ground",
            self._execute,
            # In a group of its own, because rclpy blocks the rest of a group while one of its coroutines
            # waits.
            callback_group=ReentrantCallbackGroup(),
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=REQUESTS,
            result_service_qos_profile=REQUESTS,
            cancel_service_qos_profile=REQUESTS,
            result_timeout=RESULT_SECONDS,
        )
        self._feedback = f"{node.get_fully_qualified_name()}/ground/_action/feedback"
        self._asked, self._known = -math.inf, frozenset[bytes]()

    def destroy(self) -> None:
        """Close the action."""
        self._server.destroy()

    def _on_goal(self, request: Ground.Goal) -> GoalResponse:
        """Accept every goal, because only a result can carry a sentence about what is wrong with it.
        Exception: rclpy keeps requests of accepted goals for a while, so far too long texts are rejected."""
        texts = {"text": request.goal.text, "kind": request.goal.kind, "camera": request.camera}
        for name, text in texts.items():
            if len(text) > MAX_CHARACTERS:
                self._refused(
                    f"The {name} of a goal of ~/ground has {len(text)} characters; the limit is "
                    f"{MAX_CHARACTERS}."
                )
                return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        self._condition.notify_all()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Ground.Result:
        """Search for a goal and return the result; an invalid goal is aborted with a message."""
        result = Ground.Result()
        try:
            search = self._search(handle, result)
            found = await self._pursue(search)
        except Exception as error:  # the caller always gets a response
            plain = isinstance(error, ValueError)
            result.message = str(error) if plain else f"The model failed: {type(error).__name__}: {error}"
            self._refused(result.message)
            found = False
        result.success = found
        if found:
            handle.succeed()
        elif handle.is_cancel_requested:
            result.message = "The goal was cancelled."
            handle.canceled()
        else:
            handle.abort()
        return result

    def _search(self, handle: ServerGoalHandle, result: Ground.Result) -> _Search:
        request = handle.request
        goal = self._config().lifted(goal_from_message(request.goal))
        check_standing(goal)
        self._check(goal)
        seconds = request.timeout.sec * NANOSECONDS + request.timeout.nanosec
        if seconds < 0:
            raise ValueError(
                f"The timeout is {seconds / NANOSECONDS} s; it must be 0 (the next image only) or more."
            )
        most = self._config().settings.max_timeout
        if seconds > most * NANOSECONDS:
            raise ValueError(
                f"The timeout is {seconds / NANOSECONDS:g} s; at most {most:g} s are possible (parameter "
                "max_timeout). Send the goal again when it is over."
            )
        timeout = Timeout(self._node.get_clock(), seconds / NANOSECONDS) if seconds else None
        camera = self._camera(request.camera)
        return _Search(handle, goal, camera, timeout, result, self._listeners())

    async def _pursue(self, search: _Search) -> bool:
        """Ask about one image after another until the goal is found (True) or the search ends (False)."""
        while True:
            frame_request = open_pipeline(self._pipeline(), self._config()).requests.put(self._wanted(search))
            try:
                if not await self._wait_for_answer(search, frame_request):
                    return False
                answered = frame_request.result()
            finally:
                self._drop(frame_request)
            (grounding,) = answered.groundings
            self._answered(search, answered.view, grounding)
            if grounding.detections:
                search.result.message = ""
                if answered.finished is not None:
                    found: Ground.Result = answered.finished
                    search.result.detections_3d = found.detections_3d
                    search.result.target_pose, search.result.message = found.target_pose, found.message
                return True
            search.result.message = (
                f"The goal {search.goal.text[:80]!r} is absent (presence {grounding.present:.2f})."
            )
            if search.timeout is None:
                return False

    async def _wait_for_answer(self, search: _Search, frame_request: FrameRequest) -> bool:
        """Wait for the answer and publish stages as feedback. False if the search ends first."""
        for stage in ("waiting", "looking"):
            if frame_request.stage == stage:
                self._publish_feedback(search, stage)
                await self._condition.wait_for(partial(self._moved, search, frame_request, stage))
        if frame_request.stage == "answered":
            return not search.handle.is_cancel_requested
        search.result.message = search.result.message or "No image was answered in time."
        return False

    def _moved(self, search: _Search, frame_request: FrameRequest, stage: str) -> bool:
        return frame_request.stage != stage or self._over(search)

    def _over(self, search: _Search) -> bool:
        if search.handle.is_cancel_requested or (search.timeout is not None and search.timeout.over):
            return True
        listeners = self._listeners()
        if not search.listeners or time.monotonic() - search.since < MEETING_SECONDS:
            search.listeners |= listeners
            return False
        search.listeners &= listeners
        if not search.listeners:
            search.result.message = "The client that sent the goal has gone."
        return not search.listeners

    def _listeners(self) -> frozenset[bytes]:
        """Ids of the subscribers to the feedback; every live client of the action is one."""
        now = time.monotonic()
        if now - self._asked > LISTENERS_SECONDS:
            ends = self._node.get_subscriptions_info_by_topic(self._feedback)
            self._asked, self._known = now, frozenset(bytes(end.endpoint_gid) for end in ends)
        return self._known

    def _answered(self, search: _Search, view: ImageResult, grounding: Grounding) -> None:
        search.result.header, search.result.grounding = view.header, grounding_message(view.header, grounding)
        self._publish_feedback(search, "answered")

    def _publish_feedback(self, search: _Search, stage: str) -> None:
        known = search.result
        search.handle.publish_feedback(
            Ground.Feedback(stage=stage, header=known.header, grounding=known.grounding)
        )

    def _wanted(self, search: _Search) -> Wanted:
        settings = self._config().settings
        standing = StandingGoals((search.goal,), 0, settings.min_presence, settings.min_margin)
        return Wanted(
            search.camera, True, True, partial(Question, standing=standing), partial(self._finish, search)
        )

    def _finish(
        self, search: _Search, view: ImageResult, groundings: Sequence[Grounding]
    ) -> Ground.Result | None:
        """Compute the 3D part of the result if the goal was found."""
        (grounding,) = groundings
        if not grounding.detections:
            return None
        result = Ground.Result()
        self._fill_3d(result, view, grounding)
        return result

    def _drop(self, frame_request: FrameRequest) -> None:
        pipeline = self._pipeline()
        if pipeline is not None:
            pipeline.requests.drop(frame_request)
        else:
            frame_request.fail(NoAnswer("The node is not active."))
