"""What the language model is asked about a stream of frames, and what holds for a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from groma_ros.grounding.grounder import MIN_MARGIN, MIN_PRESENCE, Grounder
from groma_ros.types import Goal, Grounding, IntArray, Scene

GoalKey = tuple[str, str, float, bytes]


def goal_key(goal: Goal) -> GoalKey:
    """Equal for two goals that are asked alike."""
    return goal.text, goal.kind, goal.min_score, b"" if goal.regions is None else goal.regions.tobytes()


@dataclass(frozen=True, eq=False)
class StandingGoals:
    """The goals that are asked of every frame."""

    goals: tuple[Goal, ...] = ()
    version: int = 0
    """Number of the goal set."""
    min_presence: float = MIN_PRESENCE
    """A goal less likely than this is absent."""
    min_margin: float = MIN_MARGIN
    """A choice of one closer than this is ambiguous."""

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for two sets that must get the same answers."""
        return (self.version, self.min_presence, self.min_margin, *map(goal_key, self.goals))

    @cached_property
    def pending(self) -> tuple[Grounding, ...]:
        """One grounding a goal, none of them answered."""
        return tuple(Grounding(goal, (), 0.0, 0.0, status="pending") for goal in self.goals)


@dataclass(frozen=True, eq=False)
class Question:
    """One scene and what to find in it."""

    scene: Scene
    standing: StandingGoals
    numbers: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 N: the track of each region; empty where nothing is tracked."""
    epoch: int = 0
    """Of the region tracker when it was asked."""

    def answer(self, grounder: Grounder) -> list[Grounding]:
        """Have it answered, in the thread that may ask the grounder."""
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
    """What holds for one frame. Detections have the boxes of this frame and their track ids; a region of -1
    was not seen in it and is carried by its motion."""

    groundings: tuple[Grounding, ...]
    """One a standing goal, in their order; pending where the language model has not answered it."""
    version: int
    """Number of the goal set."""
    answered: int | None
    """Stamp in ns of the frame that the language model answered on; None before its first answer."""
    age: float
    """Seconds from that frame to this one."""
    asked: str = ""
    """Why this frame was handed to the language model; "" where it was not."""
    failure: BaseException | None = None
    """What the language model raised about an earlier question, reported once."""

    def under(self, standing: StandingGoals) -> TrackedAnswer:
        """The same for another set of goals: those that are in both keep their answers, the others are
        pending."""
        if self.version == standing.version and len(self.groundings) == len(standing.goals):
            return self
        groundings = groundings_for(standing, self.groundings)
        return replace(self, groundings=groundings, version=standing.version)


def groundings_for(standing: StandingGoals, known: Sequence[Grounding]) -> tuple[Grounding, ...]:
    """One grounding a standing goal: a known one of the same goal, or a pending one."""
    by_goal = {goal_key(item.goal): item for item in known}
    return tuple(by_goal.get(goal_key(item.goal), item) for item in standing.pending)


def stale(grounding: Grounding) -> Grounding:
    """An answer that no longer says where its goal is; one that was not answered or found nothing is as it
    was."""
    if grounding.status not in ("present", "ambiguous"):
        return grounding
    return replace(grounding, detections=(), alternatives=(), status="stale")
