"""The standing goals with their version, and their conversion from messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from groma_ros.grounding.goals import check_standing
from groma_ros.node.parameters import Parameters
from groma_ros.tracking.questions import StandingGoals
from groma_ros.types import Goal


@dataclass(frozen=True, eq=False)
class GoalSet:
    """The standing goals."""

    goals: tuple[Goal, ...] = ()
    version: int = 0
    """0 at the start, incremented by every change."""

    def replaced(self, goals: Sequence[Goal]) -> GoalSet:
        """Return the next version with other goals."""
        return GoalSet(tuple(goals), self.version + 1)


@dataclass(frozen=True)
class NodeConfig:
    """Goals and parameters of the pipeline; replaced as a whole, so that each frame is processed with one of
    them."""

    goal_set: GoalSet
    settings: Parameters

    @cached_property
    def standing(self) -> StandingGoals:
        """The standing goals as the language model is asked them."""
        goals = tuple(self.lifted(goal) for goal in self.goal_set.goals)
        return StandingGoals(
            goals, self.goal_set.version, self.settings.min_presence, self.settings.min_margin
        )

    def lifted(self, goal: Goal) -> Goal:
        """A goal with no lower min_score than that of all goals."""
        return replace(goal, min_score=max(goal.min_score, self.settings.min_score))


def goals_from_text(text: str) -> tuple[Goal, ...]:
    """One goal a line, each of kind auto; blank lines and repeated goals are skipped. ValueError for a text
    without a goal."""
    goals = goals_from_texts(text.split("\n"))  # other separators (U+2028, U+0085) are part of a goal
    if not goals:
        raise ValueError("The message holds no goal; send one goal a line, e.g. 'the red mug'.")
    return goals


def goals_from_texts(texts: Sequence[str]) -> tuple[Goal, ...]:
    """A goal a text, each of kind auto; blank texts and repetitions are skipped."""
    return tuple(Goal(text) for text in dict.fromkeys(text.strip() for text in texts) if text)


def check_goals(goals: Sequence[Goal], max_goals: int, check: Callable[[Goal], None]) -> None:
    """Raise ValueError with a sentence unless all of the goals may stand. check: raises it for a goal that
    cannot be asked."""
    if len(goals) > max_goals:
        raise ValueError(
            f"There are {len(goals)} goals, and at most {max_goals} may stand (parameter max_goals)."
        )
    for goal in goals:
        check_standing(goal)
        check(goal)
