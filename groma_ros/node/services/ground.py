"""The action `~/ground`: looks for one goal until it is found, the time is over or the caller cancels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from groma_ros.action import Ground
from groma_ros.grounding.goals import check_standing
from groma_ros.node.async_condition import AsyncCondition
from groma_ros.node.conversions import NANOSECONDS, goal_from_message, grounding_message
from groma_ros.node.frame_result import FrameResult
from groma_ros.node.goal_set import NodeConfig
from groma_ros.node.pipeline import Pipeline
from groma_ros.node.request_queue import FrameRequest, NoAnswer, Wanted
from groma_ros.node.services.ask import open_pipeline
from groma_ros.node.subscriptions import REQUESTS
from groma_ros.tracking.executor import Question, StandingGoals
from groma_ros.types import Goal, Grounding

RESULT_SECONDS = 60
"""How long a result waits to be asked for; rclpy's own quarter of an hour would pile them up."""


@dataclass(eq=False)
class _Search:
    """A goal on its way. end: nanoseconds of the node's clock, None for the next image only; result: what is
    known so far."""

    handle: ServerGoalHandle
    goal: Goal
    camera: int | None
    end: int | None
    result: Ground.Result


class GroundAction:
    """Serves `~/ground`. The arguments are those of `asks.Asks`; solid: fills the 3D part of a result."""

    def __init__(
        self,
        node: Node,
        bell: AsyncCondition,
        pipeline: Callable[[], Pipeline | None],
        orders: Callable[[], NodeConfig],
        camera: Callable[[str], int | None],
        check: Callable[[Goal], None],
        refused: Callable[[str], None],
        solid: Callable[[Ground.Result, FrameResult, Grounding], None],
    ) -> None:
        self._node, self._bell, self._pipeline, self._orders = node, bell, pipeline, orders
        self._camera, self._check, self._refused, self._solid = camera, check, refused, solid
        self._server = ActionServer(
            node,
            Ground,
            "~/ground",
            self._execute,
            goal_callback=lambda request: GoalResponse.ACCEPT,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=REQUESTS,
            result_service_qos_profile=REQUESTS,
            cancel_service_qos_profile=REQUESTS,
            result_timeout=RESULT_SECONDS,
        )

    def destroy(self) -> None:
        """Close the action."""
        self._server.destroy()

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        self._bell.ring()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Ground.Result:
        """Every goal is accepted: only a result can say in a sentence what is wrong with one."""
        result = Ground.Result()
        try:
            search = self._search(handle, result)
            found = await self._pursue(search)
        except Exception as error:  # whatever it is, the caller gets an answer
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
        goal = self._orders().lifted(goal_from_message(request.goal))
        check_standing(goal)
        self._check(goal)
        seconds = request.timeout.sec * NANOSECONDS + request.timeout.nanosec
        if seconds < 0:
            raise ValueError(
                f"The timeout is {seconds / NANOSECONDS} s; it must be 0 (the next image only) or more."
            )
        end = self._node.get_clock().now().nanoseconds + seconds if seconds else None
        return _Search(handle, goal, self._camera(request.camera), end, result)

    async def _pursue(self, search: _Search) -> bool:
        """Whether the goal was found; looks at frame after frame until then."""
        while True:
            look = open_pipeline(self._pipeline(), self._orders()).looks.put(self._wanted(search))
            try:
                if not await self._look(search, look):
                    return False
                view, (grounding,) = look.result()
            finally:
                self._drop(look)
            self._answered(search, view, grounding)
            if grounding.detections:
                self._solid(search.result, view, grounding)
                search.result.message = ""
                return True
            search.result.message = (
                f"The goal {search.goal.text[:80]!r} is absent (presence {grounding.present:.2f})."
            )
            if search.end is None:
                return False

    async def _look(self, search: _Search, look: FrameRequest) -> bool:
        """Wait for a look's answer, telling of its stages; False when the search is over before."""
        for stage in ("waiting", "looking"):
            if look.stage == stage:
                self._tell(search, stage)
                await self._bell.until(partial(self._moved, search, look, stage))
        if look.stage == "answered":
            return not search.handle.is_cancel_requested
        search.result.message = search.result.message or "No image was answered in time."
        return False

    def _moved(self, search: _Search, look: FrameRequest, stage: str) -> bool:
        return look.stage != stage or self._over(search)

    def _over(self, search: _Search) -> bool:
        late = search.end is not None and self._node.get_clock().now().nanoseconds >= search.end
        return late or search.handle.is_cancel_requested

    def _answered(self, search: _Search, view: FrameResult, grounding: Grounding) -> None:
        search.result.header, search.result.grounding = view.header, grounding_message(view.header, grounding)
        self._tell(search, "answered")

    def _tell(self, search: _Search, stage: str) -> None:
        known = search.result
        search.handle.publish_feedback(
            Ground.Feedback(stage=stage, header=known.header, grounding=known.grounding)
        )

    def _wanted(self, search: _Search) -> Wanted:
        standing = StandingGoals((search.goal,), min_presence=self._orders().settings.min_presence)
        return Wanted(search.camera, True, True, partial(Question, standing=standing))

    def _drop(self, look: FrameRequest) -> None:
        pipeline = self._pipeline()
        if pipeline is not None:
            pipeline.looks.drop(look)
        else:
            look.fail(NoAnswer("The node is not active."))
