"""Engine over a running node: uses only its images, answers and services."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from groma_ros.client.camera_view import CameraFrame, CameraView
from groma_ros.client.groma_client import Answers, GromaClient
from groma_ros.errors import sentence
from groma_ros.live.engine import EngineState, EngineThreads, Shown, SpokenAnswer, no_boxes
from groma_ros.types import FloatArray, Goal

SILENT_SECONDS = 3.0
"""Time without diagnostics, which come every second, after which a node counts as gone."""
CHECK_SECONDS = 0.5
SERVICE_SECONDS = 10.0
ASK_SECONDS = 120.0
WAIT_SECONDS = 0.05
"""Time that answers wait for the regions and 3D boxes of their image, which arrive later."""


class NodeEngine(EngineThreads):
    """Shows the output of a node; goals and questions go to its services.

    If the node exits, its return is awaited, and it then gets the page's goals. Goals set by other clients
    are adopted. While nobody watches, only the node's diagnostics are subscribed to, so that a node without
    other subscribers does not process images.
    """

    recorded = False

    def __init__(
        self, node_name: str, goals: Sequence[Goal] = (), camera: str = "", image_topic: str | None = None
    ) -> None:
        """goals: sent to the node, none to keep its own; camera: of a node with several; image_topic: None
        for the one that the node reports."""
        super().__init__(self._supervise, self._present)
        self._name, self._camera, self._topic = node_name.strip("/"), camera.strip("/"), image_topic
        self._state = EngineState(problem=f"Waiting for the node /{self._name}.")
        self._goals = tuple(goals)
        self._goals_pending = bool(goals)
        """Whether the node needs to be given the goals."""
        self._version = -1
        """Version of the current goal set."""
        self._goals_set_at = 0.0
        """Time at which the node was given it, `time.monotonic`."""
        self._last_report = 0.0
        """Time of the latest diagnostics, `time.monotonic`."""
        self._alive = False
        self._depth_published = False
        """Whether depth is published for the node."""
        self._depth_wanted = False
        self._show_lock = threading.Lock()
        """Held while a frame is shown, so that a paused picture stays. Acquired before `_changed`, which the
        client's thread needs and which is therefore never held for long."""
        self._steps = self._frame_count = self._last_stamp = 0
        self._newest: Answers | None = None
        self._regions = no_boxes()
        """The latest regions; the node publishes none for an image with carried answers."""
        self._client = GromaClient(
            node_name, on_answers=self._on_answers, on_diagnostics=self._on_diagnostics
        )
        self._client.ignore("")  # until a page is open
        self._view = CameraView(self._client, node_name, camera)

    @property
    def source(self) -> str:
        """Name of the node."""
        return f"node /{self._name}" + (f", camera {self._camera}" if self._camera else "")

    @property
    def _diagnostics(self) -> dict[str, str]:
        """Return the node's diagnostics. For a node with several cameras the counts and times of this camera
        replace the node's totals."""
        return self._client.diagnostics | self._client.camera_diagnostics.get(self._camera, {})

    @property
    def model(self) -> str:
        """Model and backend of the node."""
        facts = self._diagnostics
        return ", ".join(filter(None, (facts.get("backend"), facts.get("device"), facts.get("precision"))))

    @property
    def state(self) -> EngineState:
        """Return the current state."""
        facts = self._diagnostics
        dropped, refused = (int(facts.get(key, "0")) for key in ("dropped", "refused images"))
        depth = self._depth_published
        return replace(self._state, dropped=dropped, refused=refused, depth_published=depth)

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return the standing goals."""
        return self._goals

    def can(self, kind: str) -> bool:
        """Always true: the node refuses with a sentence what its model cannot answer."""
        return True

    def set_depth_wanted(self, wanted: bool) -> None:
        """Set whether to subscribe to the node's depth topic: while a page is open or a recording runs."""
        with self._changed:
            self._depth_wanted = wanted

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Set the node's goals. Raises ValueError with the node's message, or if it does not respond."""
        try:
            version = self._client.set_goals(list(goals), SERVICE_SECONDS)
        except TimeoutError as error:
            raise ValueError(f"{error} The goals are as they were.") from error
        with self._changed:
            self._goals, self._goals_pending = tuple(goals), False
            self._version, self._goals_set_at = version, time.monotonic()

    def ask(self, shown: Shown, question: str, regions: FloatArray, dialogue: str) -> SpokenAnswer:
        """Ask the node, about its newest image or that of the dialogue. Raises ValueError if the question is
        refused or not answered."""
        try:
            reply = self._client.ask(
                question.strip(), regions, session=dialogue, camera=self._camera, timeout=ASK_SECONDS
            )
        except TimeoutError as error:
            raise ValueError(str(error)) from error
        return SpokenAnswer(reply.grounding, reply.stamp)

    def set_paused(self, paused: bool) -> None:
        """Freeze the picture, or resume; the node continues."""
        with self._show_lock, self._changed:
            self._state, self._steps = replace(self._state, paused=paused), 0
            self._changed.notify_all()

    def step(self) -> None:
        """Freeze, and show the newest frame."""
        with self._show_lock, self._changed:
            self._state = replace(self._state, paused=True)
            self._steps = 1
            self._changed.notify_all()

    def set_speed(self, speed: float) -> None:
        """Raises ValueError: a node's camera has only one speed."""
        raise ValueError("A node's camera has one speed; only a recording can be played faster or slower.")

    def restart(self) -> None:
        """Raises ValueError: a node's camera has no start."""
        raise ValueError("A node's camera has no start to go back to.")

    def close(self) -> None:
        """End the threads and shut ROS down; the node keeps its goals."""
        self._end_threads(SERVICE_SECONDS + 2)
        self._client.close()

    # The node

    def _supervise(self) -> None:
        """Watch for the exit or start of the node, and keep its goals and the image topic up to date."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, CHECK_SECONDS)
                if self._closed:
                    return
                alive = time.monotonic() - self._last_report < SILENT_SECONDS and self._last_report > 0
                started, self._alive = alive and not self._alive, alive
                if started:
                    self._goals_pending = self._goals_pending or bool(self._goals)
            try:
                problem = self._sync_with_node() if alive else self._node_lost()
            except Exception as error:  # ROS errors while the node is exiting or starting; tried again
                problem = sentence(error)
            with self._changed:
                self._state = replace(self._state, problem=problem)

    def _node_lost(self) -> str:
        self._unsubscribe()
        if not self._last_report:
            return f"No node /{self._name} is heard yet; is it started, with the same ROS_DOMAIN_ID?"
        return f"The node /{self._name} is not heard any more; waiting for it to come back."

    def _sync_with_node(self) -> str:
        """Give the node missing goals and subscribe to what is wanted. Returns why no frames come, or ""."""
        problem = ""
        if self._goals_pending:
            try:
                self.set_goals(self._goals)
            except ValueError as error:
                problem = str(error)
        topic = self._topic or self._diagnostics.get("image topic", "")
        if not self._watched:
            self._unsubscribe()
            return problem
        self._client.listen_to(self._camera)
        if missing := self._missing_camera(topic):
            return problem or missing
        if self._view.topic != topic:  # also for a node that restarted with another topic
            self._view.unsubscribe()
            kind = self._view.message_type(topic)
            if kind is None:
                return f"Nobody publishes the node's image topic {topic}; start the camera."
            self._view.subscribe(topic, kind)
        self._update_depth()
        return problem

    def _missing_camera(self, topic: str) -> str:
        """Return why the node does not answer this camera, whose image topic is `topic` ("" if unknown), or
        "" if it does."""
        known = self._client.camera_diagnostics
        if known and self._camera not in known:
            what = f"no camera {self._camera}" if self._camera else "several cameras"
            return f"The node /{self._name} has {what}; name one of {', '.join(known)} with --camera."
        if not topic:
            return f"The node /{self._name} reads no images yet; is it active?"
        if not self._client.is_answering(self._camera):
            what = f"no camera {self._camera}" if self._camera else "a camera with a name"
            return f"The node /{self._name} has {what}; name its camera (parameter cameras) with --camera."
        return ""

    def _unsubscribe(self) -> None:
        """Unsubscribe from the node's images and answers."""
        self._client.ignore(self._camera)
        self._view.unsubscribe()

    def _update_depth(self) -> None:
        """Subscribe to depth while it is wanted."""
        facts = self._diagnostics
        topic = facts.get("depth topic", "")
        kind = self._view.message_type(topic) if topic else None
        self._depth_published = kind is not None
        self._view.depth_tolerance = float(facts.get("sync tolerance", "0"))
        if kind is None or not self._depth_wanted:
            self._view.unsubscribe_depth()
            return
        source = topic, facts["camera_info topic"], facts.get("rectified", "auto")
        if self._view.depth_source != source:
            self._view.subscribe_depth(source[0], kind, *source[1:])

    def _on_diagnostics(self, facts: dict[str, str]) -> None:
        with self._changed:
            self._last_report = time.monotonic()
            # A node that restarted within a moment counts its goal sets from the beginning.
            if (
                int(facts.get("goals_version", "0")) < self._version
                and self._last_report - self._goals_set_at > SILENT_SECONDS
            ):
                self._goals_pending = bool(self._goals)
                self._version = -1

    def _on_answers(self, answers: Answers) -> None:
        with self._changed:
            self._newest = answers
            goals = tuple(item.goal for item in answers.groundings)
            known = [(goal.text, goal.kind) for goal in self._goals]
            # Goals set by another client; answers to the previous goals may still arrive.
            newer = answers.goals_version > self._version and not self._goals_pending
            if newer and [(goal.text, goal.kind) for goal in goals] != known:
                self._goals, self._version = goals, answers.goals_version
            self._changed.notify_all()

    # Frames

    def _present(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_news())
                if self._closed:
                    return
                answers, stepped, self._steps = self._newest, self._steps > 0, 0
            if answers is None:
                continue
            try:
                self._present_one(answers, stepped)
            except Exception as error:  # whatever the error, the next frame is shown
                with self._changed:
                    self._last_stamp = answers.stamp
                    self._state = replace(self._state, problem=sentence(error))

    def _present_one(self, answers: Answers, stepped: bool) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not self._view.is_complete(answers.stamp) and time.monotonic() < end:
            time.sleep(0.01)
        found = self._view.frame(answers)
        with self._show_lock:
            with self._changed:
                self._last_stamp = answers.stamp
                wanted = stepped or not self._state.paused  # may have been paused in the meantime
            if found is not None and wanted:
                self._frame_count += 1
                self._show(self._shown(found))

    def _has_news(self) -> bool:
        new = self._newest is not None and self._newest.stamp != self._last_stamp
        return bool(new) and bool(self._view.topic) and (not self._state.paused or self._steps > 0)

    def _shown(self, found: CameraFrame) -> Shown:
        texts = [item.goal.text for item in found.answers.groundings]
        self._regions = found.regions if len(found.regions) else self._regions
        places = None
        if found.boxes is not None:
            places = tuple((texts.index(text), box) for text, box in found.boxes if text in texts)
        stages: dict[str, Any] = {
            key.removeprefix("median ms "): float(value)
            for key, value in self._diagnostics.items()
            if key.startswith("median ms ")
        }
        return Shown(
            self._frame_count,
            found.frame,
            tuple(found.answers.groundings),
            self._regions,
            found.answers.answered or None,
            stages,
            places,
        )
