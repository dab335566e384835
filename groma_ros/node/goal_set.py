"""The standing goals with their version, and their conversion from messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from groma_ros.grounding.goals import check_standing
from groma_ros.node.parameters import Parameters
from groma_ros.tracking.questions import GoalKey, StandingGoals, goal_key
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
    """Goals and parameters of the pipeline. Replaced as a whole, so each frame is processed with a consistent
    config."""

    goal_set: GoalSet
    settings: Parameters

    @cached_property
    def standing(self) -> StandingGoals:
        """The standing goals in the form the language model is asked."""
        goals = tuple(self.lifted(goal) for goal in self.goal_set.goals)
        return StandingGoals(
            goals, self.goal_set.version, self.settings.min_presence, self.settings.min_margin
        )

    def lifted(self, goal: Goal) -> Goal:
        """Raise a goal's min_score to the node's min_score."""
        return replace(goal, min_score=max(goal.min_score, self.settings.min_score))


def goals_from_text(text: str) -> tuple[Goal, ...]:
    """Parse one goal of kind auto per line; blank and repeated lines are skipped. Raises ValueError if no
    goal is left."""
    goals = goals_from_texts(text.split("\n"))  # other separators (U+2028, U+0085) are part of a goal
    if not goals:
        raise ValueError("The message holds no goal; send one goal a line, e.g. 'the red mug'.")
    return goals


def goals_from_texts(texts: Sequence[str]) -> tuple[Goal, ...]:
    """One goal of kind auto per text; blank and repeated texts are skipped."""
    return tuple(Goal(text) for text in dict.fromkeys(text.strip() for text in texts) if text)


def without_repetitions(goals: Sequence[Goal]) -> tuple[Goal, ...]:
    """The goals in their order, each question once."""
    first: dict[GoalKey, Goal] = {}
    for goal in goals:
        first.setdefault(goal_key(goal), goal)
    return tuple(first.values())


def check_count(goals: Sequence[Goal], max_goals: int) -> None:
    """Raise ValueError for more goals than may stand."""
    if len(goals) > max_goals:
        raise ValueError(
            f"There are {len(goals)} goals, and at most {max_goals} may stand (parameter max_goals)."
        )


def check_goals(goals: Sequence[Goal], max_goals: int, check: Callable[[Goal], None]) -> None:
    """Raise ValueError unless all goals can be standing goals. check: raises ValueError for a goal that
    cannot be asked."""
    check_count(goals, max_goals)
    for goal in goals:
        check_standing(goal)
        check(goal)
