"""The service `~/ask`: a question about the newest image, answered in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from groma_ros.grounding.asking import Question, Standing
from groma_ros.node.bell import Bell
from groma_ros.node.conversions import box_corners, detection_message
from groma_ros.node.goals import Orders
from groma_ros.node.looks import Look, NoAnswer, Wanted
from groma_ros.node.pipeline import CLOSED, Pipeline
from groma_ros.node.views import View
from groma_ros.srv import Ask
from groma_ros.types import Goal, Grounding, Scene, TextSpan


class Asks:
    """Serves `~/ask`. pipeline: gives the one that runs, None while the node is not active; camera: the index of a camera by its
    name, None for "", ValueError for one that is not there; check: raises ValueError for a goal that cannot be asked; refused:
    counts a refusal with its sentence."""

    def __init__(
        self,
        node: Node,
        bell: Bell,
        pipeline: Callable[[], Pipeline | None],
        orders: Callable[[], Orders],
        camera: Callable[[str], int | None],
        check: Callable[[Goal], None],
        refused: Callable[[str], None],
    ) -> None:
        self._node, self._bell, self._pipeline, self._orders = node, bell, pipeline, orders
        self._camera, self._check, self._refused = camera, check, refused
        self._service = node.create_service(Ask, "~/ask", self._on_ask)

    def destroy(self) -> None:
        """Close the service."""
        self._node.destroy_service(self._service)

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        try:
            pipeline = open_pipeline(self._pipeline(), self._orders())
            goal = self._goal(request)
            look = pipeline.looks.put(Wanted(self._camera(request.camera), False, False, lambda scene: _question(scene, goal)))
            try:
                if pipeline.recall(look.wanted.camera) is None:
                    raise NoAnswer("No image has come yet.")
                _fill(response, *await self._answer(look))
            finally:
                pipeline.looks.drop(look)
        except Exception as error:  # whatever it is, the caller gets an answer
            plain = isinstance(error, ValueError)
            response.success, response.message = False, str(error) if plain else f"The model failed: {type(error).__name__}: {error}"
            self._refused(response.message)
        return response

    async def _answer(self, look: Look) -> tuple[View, tuple[Grounding, ...]]:
        clock, limit = self._node.get_clock(), self._orders().settings.ask_timeout
        end = clock.now().nanoseconds + int(limit * 1e9)
        await self._bell.until(lambda: look.stage == "answered" or clock.now().nanoseconds > end)
        if look.stage != "answered":
            raise NoAnswer(f"There was no answer within {limit:g} s (parameter ask_timeout).")
        return look.result()

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


def open_pipeline(pipeline: Pipeline | None, orders: Orders) -> Pipeline:
    """The pipeline, if it runs and has room for one more question; else NoAnswer."""
    if pipeline is None:
        raise NoAnswer(CLOSED)
    if len(pipeline.looks) >= orders.settings.max_asks:
        raise NoAnswer(f"{orders.settings.max_asks} questions are open already (parameter max_asks); ask again later.")
    return pipeline


def _question(scene: Scene, goal: Goal) -> Question:
    return Question(scene, Standing((goal,)), np.zeros(len(scene.boxes), np.int64), 0)


def _fill(response: Any, view: View, groundings: tuple[Grounding, ...]) -> None:
    (grounding,) = groundings
    response.success, response.header, response.answer = True, view.header, grounding.text
    boxes = {item.region: item for item in grounding.detections}
    spans = grounding.spans or [TextSpan("", 0, 0, (item.region,)) for item in grounding.detections]
    for span in spans:
        for region in span.regions:
            response.detections.append(detection_message(view.header, span.phrase, boxes[region]))
            response.starts.append(span.start)
            response.ends.append(span.end)
