"""Questions to the language model about a stream of frames, and answers for its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from groma_ros.grounding.grounder import MIN_MARGIN, MIN_PRESENCE, Grounder
from groma_ros.types import Goal, Grounding, IntArray, Scene

GoalKey = tuple[str, str, float, bytes]


def goal_key(goal: Goal) -> GoalKey:
    """Key that is equal for goals with the same question."""
    return goal.text, goal.kind, goal.min_score, b"" if goal.regions is None else goal.regions.tobytes()


@dataclass(frozen=True, eq=False)
class StandingGoals:
    """The goals that are asked about every frame."""

    goals: tuple[Goal, ...] = ()
    version: int = 0
    """Number of the goal set."""
    min_presence: float = MIN_PRESENCE
    """Goals with a lower presence are absent."""
    min_margin: float = MIN_MARGIN
    """If the margin of a single choice is lower, it is ambiguous."""

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Key that is equal for sets that must get the same answers."""
        return (self.version, self.min_presence, self.min_margin, *map(goal_key, self.goals))

    @cached_property
    def pending(self) -> tuple[Grounding, ...]:
        """Return a pending grounding for each goal."""
        return tuple(Grounding(goal, (), 0.0, 0.0, status="pending") for goal in self.goals)


@dataclass(frozen=True, eq=False)
class Question:
    """A scene and the goals to find in it."""

    scene: Scene
    standing: StandingGoals
    numbers: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 N: the track of each region; empty where nothing is tracked."""
    epoch: int = 0
    """Of the region tracker when it was asked."""

    def answer(self, grounder: Grounder) -> list[Grounding]:
        """Answer it; for the thread that owns the grounder."""
        grounder.min_presence, grounder.min_margin = self.standing.min_presence, self.standing.min_margin
        return grounder.ground(self.scene, self.standing.goals)


@dataclass(frozen=True, eq=False)
class Reply:
    """A question's answers, one a goal."""

    question: Question
    groundings: tuple[Grounding, ...]
    seconds: float = 0.0
    """How long the language model took."""


@dataclass(frozen=True, eq=False)
class TrackedAnswer:
    """Answers for one frame. Detections have boxes of this frame and track ids; a region of -1 was not seen
    in it and is extrapolated."""

    groundings: tuple[Grounding, ...]
    """One a standing goal, in their order; pending where the language model has not answered it."""
    version: int
    """Number of the goal set."""
    answered: int | None
    """Stamp in ns of the frame that the language model answered on; None before its first answer."""
    age: float
    """Seconds from that frame to this one."""
    asked: str = ""
    """Why the language model was asked about this frame; "" if it was not."""
    failure: BaseException | None = None
    """Exception that the language model raised on an earlier question, reported once."""

    def under(self, standing: StandingGoals) -> TrackedAnswer:
        """Return the answers for another set of goals: common goals keep their answers, others are
        pending."""
        if self.version == standing.version and len(self.groundings) == len(standing.goals):
            return self
        groundings = groundings_for(standing, self.groundings)
        return replace(self, groundings=groundings, version=standing.version)


def groundings_for(standing: StandingGoals, known: Sequence[Grounding]) -> tuple[Grounding, ...]:
    """Return a grounding for each standing goal: a known one of the same goal, or a pending one."""
    by_goal = {goal_key(item.goal): item for item in known}
    return tuple(by_goal.get(goal_key(item.goal), item) for item in standing.pending)


def stale(grounding: Grounding) -> Grounding:
    """Mark an answer as stale, without detections; "absent" grows as old as any. A pending one is returned
    unchanged."""
    if grounding.status == "pending":
        return grounding
    return replace(grounding, detections=(), alternatives=(), status="stale")
