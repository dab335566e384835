"""A stand-in for an engine: shows the frames it is given, and records its calls."""

from __future__ import annotations

from collections.abc import Sequence

from groma_ros.live.engine import EngineState, Show, Shown, SpokenAnswer
from groma_ros.types import FloatArray, Goal


class StandInEngine:
    """Has no source and no model."""

    source, model, recorded = "a picture", "none", False

    def __init__(self, goals: Sequence[Goal] = ()) -> None:
        self.goals = tuple(goals)
        self.state = EngineState()
        self.watched = self.depth_wanted = False
        self.show: Show = lambda shown: None

    def can(self, kind: str) -> bool:
        return False

    def set_goals(self, goals: Sequence[Goal]) -> None:
        raise ValueError("The goals stay.")

    def ask(self, shown: Shown, question: str, regions: FloatArray, dialogue: str) -> SpokenAnswer:
        raise ValueError("Nothing answers.")

    def set_depth_wanted(self, wanted: bool) -> None:
        self.depth_wanted = wanted

    def set_watched(self, watched: bool) -> None:
        self.watched = watched

    def set_paused(self, paused: bool) -> None: ...
    def step(self) -> None: ...
    def set_speed(self, speed: float) -> None: ...
    def restart(self) -> None: ...

    def start(self, show: Show) -> None:
        self.show = show

    def close(self) -> None: ...
