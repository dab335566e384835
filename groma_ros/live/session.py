"""State of the page and its actions, without web code.

All pages share goals, frame and labels; a dialogue belongs to one page. `state` returns what a page draws,
`do` executes what a person does on it; both use plain JSON.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from groma_ros.errors import sentence
from groma_ros.grounding.goals import check_goal, check_standing
from groma_ros.live.engine import Engine, Shown
from groma_ros.live.labels import LabelFile, jpeg
from groma_ros.live.page_json import (
    Action,
    answer_state,
    boxes_of,
    goal_state,
    goals_of,
    number_of,
    rounded,
    text_of,
)
from groma_ros.live.saving import Recorder, save_frame
from groma_ros.live.space import placed, point_cloud
from groma_ros.tracking.questions import StandingGoals, groundings_for
from groma_ros.types import Goal

KEPT = 8
"""Number of shown frames that can still be labelled, saved and asked about."""
QUALITY = 80
"""JPEG quality of the pictures sent to pages."""
MAX_GOALS = 64
RATE_FRAMES = 20
"""Number of frames over which the rate is measured."""


class LiveSession:
    """One source, one list of goals, any number of pages."""

    def __init__(self, engine: Engine, out: Path) -> None:
        """out: folder for labels, frames and bags. Raises ValueError if it has labels in another format."""
        self.engine = engine
        self.labels = LabelFile(out / "labels")
        self.recorder = Recorder(out, engine.model)
        self._out = out
        self._lock = threading.Lock()
        self._recent: deque[Shown] = deque(maxlen=KEPT)
        self._show_times: deque[float] = deque(maxlen=RATE_FRAMES)
        self._pictures: dict[int, bytes] = {}
        self._listeners: set[Callable[[], None]] = set()
        self._recording_error = ""
        """Why the last recording ended, a sentence; "" if it was stopped."""
        self._space_listeners: set[Callable[[], None]] = set()
        """Listeners whose page shows the 3D view."""
        self._watch_lock = threading.Lock()
        """Held while telling the engine whether anybody is watching, so that the last call wins."""
        self._actions: dict[str, Callable[[str, Action], dict[str, Any]]] = {
            "goals": self._set_goals,
            **dict.fromkeys(("pause", "resume", "step", "restart", "speed"), self._control),
            "ask": self._ask,
            "save": self._save,
            "record": self._record,
            "label": self._label,
            "unlabel": self._unlabel,
        }

    def start(self) -> None:
        """Start showing frames."""
        self.engine.start(self._on_shown)

    def close(self) -> None:
        """Finish a recording and release the source."""
        try:
            self.recorder.stop()
        finally:
            self.engine.close()

    # Pages

    def add_page(self, listener: Callable[[], None]) -> None:
        """Register an open page. listener: called, from any thread, whenever the content of a page has
        changed."""
        with self._lock:
            self._listeners.add(listener)
        self._update_watched()

    def remove_page(self, listener: Callable[[], None]) -> None:
        """Unregister a closed page. Without pages the source is paused, unless it is being recorded."""
        with self._lock:
            self._listeners.discard(listener)
            self._space_listeners.discard(listener)
        self._update_watched()

    def set_space_view(self, listener: Callable[[], None], shown: bool) -> None:
        """Set whether a page shows the 3D view; frames then come with depth."""
        with self._lock:
            if shown == (listener in self._space_listeners):
                return
            self._space_listeners ^= {listener}
        self._update_watched()

    @property
    def newest(self) -> Shown | None:
        """The frame on the page; None before the first."""
        with self._lock:
            return self._recent[-1] if self._recent else None

    def state(self, shown: Shown | None) -> dict[str, Any]:
        """Everything a page draws except the picture, for a shown frame (`newest`)."""
        engine = self.engine
        standing = StandingGoals(engine.goals)
        labels = self.labels.of(shown.frame) if shown else {}
        known = groundings_for(standing, shown.groundings if shown else ())
        state, counts = engine.state, self.labels.counts
        return {
            "frame": None if shown is None else _frame_state(shown, state.depth_published),
            "regions": [] if shown is None else [rounded(box) for box in shown.regions],
            "goals": [goal_state(item, labels.get(item.goal.text)) for item in known],
            "source": {
                "name": engine.source,
                "model": engine.model,
                "recorded": engine.recorded,
                "paused": state.paused,
                "speed": state.speed,
                "ended": state.ended,
                "problem": state.problem or self._recording_error,
            },
            "counts": {"dropped": state.dropped, "refused": state.refused},
            "rate": round(self._rate(), 1),
            "can": {"describe": engine.can("describe"), "chat": engine.can("chat")},
            "labels": {"frames": counts.frames, "goals": counts.goals, "absent": counts.absent},
            "recording": {"path": str(self.recorder.path or ""), "frames": self.recorder.frames},
        }

    def picture(self, shown: Shown) -> bytes:
        """Encode a frame as JPEG; the newest is encoded once for all pages."""
        with self._lock:
            known = self._pictures.get(shown.number)
        if known is None:
            known = jpeg(shown.frame.rgb, QUALITY)
            with self._lock:
                self._pictures = {shown.number: known}
        return known

    def space(self, shown: Shown) -> tuple[dict[str, Any], bytes] | None:
        """3D boxes and points of a frame for the 3D view, see `space.point_cloud`; None without depth."""
        return point_cloud(shown.frame, placed(shown))

    def do(self, page: str, action: Mapping[str, Any]) -> dict[str, Any]:
        """Execute an action of a page and return the response to it. `ask` may take long.

        action: its name under `do`, and its arguments. Raises ValueError or OSError with a sentence if it is
        not possible.
        """
        run = self._actions.get(str(action.get("do")))
        if run is None:
            known = ", ".join(self._actions)
            raise ValueError(f"The action {str(action.get('do'))[:40]!r} is unknown; known are {known}.")
        try:
            return run(page, action)
        finally:
            self._notify()

    # Actions

    def _set_goals(self, page: str, action: Action) -> dict[str, Any]:
        goals = goals_of(action)
        if len(goals) > MAX_GOALS:
            raise ValueError(f"There are {len(goals)} goals; at most {MAX_GOALS} can stand on the page.")
        texts = [goal.text for goal in goals]
        for goal in goals:
            check_goal(goal)
            check_standing(goal)
            if texts.count(goal.text) > 1:
                raise ValueError(f"The goal {goal.text[:40]!r} stands there twice; change one of them.")
        self.engine.set_goals(goals)
        return {}

    def _control(self, page: str, action: Action) -> dict[str, Any]:
        name = action["do"]
        if name == "step":
            self.engine.step()
        elif name == "restart":
            self.engine.restart()
        elif name == "speed":
            self.engine.set_speed(number_of(action, "speed"))
        else:
            self.engine.set_paused(name == "pause")
        return {}

    def _ask(self, page: str, action: Action) -> dict[str, Any]:
        shown, question = self._shown(action), text_of(action, "question")
        dialogue = text_of(action, "dialogue")
        regions = boxes_of(action, "regions")
        if not question.strip() and not len(regions):
            raise ValueError("There is nothing to ask: write a question, or point at a region.")
        name = f"{page}/{dialogue}" if dialogue else ""
        spoken = self.engine.ask(shown, question, regions, name)
        return {**answer_state(spoken.grounding), "same_frame": spoken.stamp == shown.frame.stamp}

    def _save(self, page: str, action: Action) -> dict[str, Any]:
        return {"files": [str(path) for path in save_frame(self._out, self._shown(action))]}

    def _record(self, page: str, action: Action) -> dict[str, Any]:
        try:
            if not action.get("on"):
                frames, path = self.recorder.frames, self.recorder.stop() or Path()
                return {"file": str(path), "frames": frames}
            path, self._recording_error = self.recorder.start(), ""
            newest = self.newest
            if newest is not None:
                self.recorder.add(newest)
            return {"file": str(path)}
        finally:
            self._update_watched()

    def _label(self, page: str, action: Action) -> dict[str, Any]:
        goal, shown = self._standing(action), self._shown(action)
        self.labels.put(shown.frame, goal, boxes_of(action, "boxes"))
        return {"file": str(self.labels.path)}

    def _unlabel(self, page: str, action: Action) -> dict[str, Any]:
        self.labels.remove(self._shown(action).frame, text_of(action, "goal"))
        return {}

    def _standing(self, action: Action) -> Goal:
        text = text_of(action, "goal")
        for goal in self.engine.goals:
            if goal.text == text:
                return goal
        raise ValueError(f"The goal {text[:40]!r} does not stand any more; add it again to label it.")

    def _shown(self, action: Action) -> Shown:
        number = int(number_of(action, "frame"))
        with self._lock:
            for shown in self._recent:
                if shown.number == number:
                    return shown
        raise ValueError("That frame has passed; hold the picture first, and then do it again.")

    # Notifications

    def _on_shown(self, shown: Shown) -> None:
        with self._lock:
            self._recent.append(shown)
            self._show_times.append(time.monotonic())
        try:
            self.recorder.add(shown)
        except OSError as error:
            with suppress(OSError):
                self.recorder.stop()
            self._recording_error = f"The recording ended, and nothing of it is kept: {sentence(error)}"
            self._update_watched()
        self._notify()

    def _notify(self) -> None:
        with self._lock:
            listeners: Sequence[Callable[[], None]] = list(self._listeners)
        for listener in listeners:
            listener()

    def _update_watched(self) -> None:
        with self._watch_lock:
            recorded = self.recorder.path is not None
            with self._lock:
                watched, in_space = bool(self._listeners), bool(self._space_listeners)
            self.engine.set_watched(watched or recorded)
            self.engine.set_depth_wanted(in_space or recorded)

    def _rate(self) -> float:
        """Frames shown per second recently."""
        with self._lock:
            times = list(self._show_times)
        if len(times) < 2 or times[-1] <= times[0]:
            return 0.0
        gaps, span = len(times) - 1, times[-1] - times[0]
        late = time.monotonic() - times[-1] - span / gaps  # the next frame is overdue
        return gaps / (span + max(late, 0.0))


def _frame_state(shown: Shown, depth_published: bool) -> dict[str, Any]:
    height, width = shown.frame.rgb.shape[:2]
    answered = shown.answered
    return {
        "number": shown.number,
        "stamp": str(shown.frame.stamp),  # more digits than a JavaScript number has
        "width": width,
        "height": height,
        "depth": depth_published
        or bool(shown.places)
        or (shown.frame.depth is not None and shown.frame.intrinsics is not None),
        "age": None if answered is None else round((shown.frame.stamp - answered) / 1e9, 3),
        "milliseconds": {name: round(value, 1) for name, value in shown.milliseconds.items()},
    }
