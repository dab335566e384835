"""The service `~/ask`: a question about the newest image, answered in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from groma_ros.grounding.conversation import Conversation, Sessions
from groma_ros.grounding.grounder import Grounder
from groma_ros.node.async_condition import AsyncCondition, Timeout
from groma_ros.node.conversions import box_corners, detection_message
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import NodeConfig
from groma_ros.node.pipeline import CLOSED, Pipeline
from groma_ros.node.request_queue import Answered, FrameRequest, NoAnswer, Wanted
from groma_ros.node.subscriptions import REQUESTS
from groma_ros.srv import Ask
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Goal, Grounding


@dataclass(eq=False)
class Session:
    """A conversation and the frame it is about."""

    view: ImageResult | None = None
    conversation: Conversation | None = None
    """None before the first answer; set in the language model's thread."""
    busy: bool = False
    """Whether a question is in progress."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Remark(Question):
    """A question that may belong to a conversation."""

    session: Session

    def answer(self, grounder: Grounder) -> list[Grounding]:
        """Answer in words, continuing the conversation; runs in the language model's thread."""
        (goal,) = self.standing.goals
        if goal.kind != "chat":
            return grounder.ground(self.scene, [goal])
        grounding, self.session.conversation = grounder.converse(
            self.session.conversation or Conversation.about(self.scene), goal
        )
        return [grounding]


MAX_NAME = 200
"""Maximum length of a session name, characters."""


class AskService:
    """Serves `~/ask` for the lifetime of the node; while the node is inactive every question is refused.

    pipeline: returns the running pipeline, None while the node is inactive; camera: returns a camera's index
    by name, None for "", and raises ValueError for an unknown name; check: raises ValueError for a goal that
    cannot be asked; refused: counts a refusal.
    """

    def __init__(
        self,
        node: Node,
        condition: AsyncCondition,
        pipeline: Callable[[], Pipeline | None],
        config: Callable[[], NodeConfig],
        camera: Callable[[str], int | None],
        check: Callable[[Goal], None],
        refused: Callable[[str], None],
    ) -> None:
        self._node, self._condition, self._pipeline, self._config = node, condition, pipeline, config
        self._camera, self._check, self._refused = camera, check, refused
        self._sessions: Sessions[Session] = Sessions()
        self._opening: dict[str, Session] = {}
        # In a group of its own, because rclpy blocks the rest of a group while one of its coroutines waits.
        node.create_service(
            Ask, "~/ask", self._on_ask, qos_profile=REQUESTS, callback_group=ReentrantCallbackGroup()
        )

    def clear(self) -> None:
        """Forget all conversations."""
        self._sessions.clear()

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        try:
            # Check everything first: a refused request must not evict a conversation or leave anything
            # behind.
            pipeline = open_pipeline(self._pipeline(), self._config())
            goal, camera = self._goal(request), self._camera(request.camera)
            session = self._session(request.session)
            question = partial(Remark, standing=StandingGoals((goal,)), session=session)
            frame_request = pipeline.requests.put(Wanted(camera, False, False, question))
            session.busy = True
            if request.session:
                self._opening[request.session] = session
            try:
                self._begin(pipeline, frame_request, session)
                answered = await self._answer(frame_request)
            finally:
                session.busy = False
                self._opening.pop(request.session, None)
                pipeline.requests.drop(frame_request)
            if request.session:
                session.view = answered.view
                self._sessions.keep(request.session, session, self._config().settings.max_sessions)
            _fill(response, answered.view, *answered.groundings)
        except Exception as error:  # the caller always gets a response
            plain = isinstance(error, ValueError)
            response.success, response.message = (
                False,
                str(error) if plain else f"The model failed: {type(error).__name__}: {error}",
            )
            self._refused(response.message)
        return response

    def _session(self, name: str) -> Session:
        """Return the session of a name, or a new one, which is stored with its first answer."""
        if len(name) > MAX_NAME:
            raise ValueError(f"The session's name has {len(name)} characters; at most {MAX_NAME} are kept.")
        session = (self._sessions.get(name) if name else None) or self._opening.get(name) or Session()
        if session.busy:
            raise NoAnswer(f"The session {name[:80]!r} has a question open; ask one at a time.")
        return session

    @staticmethod
    def _begin(pipeline: Pipeline, frame_request: FrameRequest, session: Session) -> None:
        """Submit a question on the session's image, or on the newest image."""
        if session.view is not None:
            frame_request.begin(session.view)
        elif pipeline.recall(frame_request.wanted.camera) is None:
            raise NoAnswer("No image has come yet.")

    async def _answer(self, frame_request: FrameRequest) -> Answered:
        limit = self._config().settings.ask_timeout
        timeout = Timeout(self._node.get_clock(), limit)
        await self._condition.wait_for(lambda: frame_request.future.done() or timeout.over)
        if not frame_request.future.done():
            raise NoAnswer(f"There was no answer within {limit:g} s (parameter ask_timeout).")
        return frame_request.result()

    def _goal(self, request: Ask.Request) -> Goal:
        kind = request.kind or "auto"
        if kind not in ("auto", "describe", "chat"):
            raise ValueError(f"The kind {kind[:40]!r} is unknown; use one of auto, describe, chat.")
        if kind == "auto":
            kind = "chat" if request.question.strip() else "describe"
        regions = np.array([box_corners(box) for box in request.regions], np.float32).reshape(-1, 4)
        text = "" if kind == "describe" else request.question
        goal = Goal(text, "chat" if kind == "chat" else "describe", regions=regions if len(regions) else None)
        self._check(goal)
        return goal


def open_pipeline(pipeline: Pipeline | None, config: NodeConfig) -> Pipeline:
    """Return the pipeline. Raises NoAnswer if it is not running or too many questions are open."""
    if pipeline is None:
        raise NoAnswer(CLOSED)
    if len(pipeline.requests) >= config.settings.max_asks:
        raise NoAnswer(
            f"{config.settings.max_asks} questions are open already (parameter max_asks); ask again later."
        )
    return pipeline


def _fill(response: Any, view: ImageResult, grounding: Grounding) -> None:
    response.success, response.header, response.answer = True, view.header, _legal(grounding.text)
    boxes = {item.region: item for item in grounding.detections}
    for span in grounding.spans:
        for region in span.regions:
            response.detections.append(detection_message(view.header, _legal(span.phrase), boxes[region]))
            response.starts.append(span.start)
            response.ends.append(span.end)


def _legal(text: str) -> str:
    """Replace NUL, which would end a ROS string, without changing the length."""
    return text.replace("\0", "\ufffd")
