"""The goals a benchmark asks: words of the shipped model, of mixed kinds, always the same."""

from __future__ import annotations

from dataclasses import replace

from groma_ros.types import Goal

MIXED: tuple[Goal, ...] = (
    Goal("the red mug"),
    Goal("all the blue objects", "all"),
    Goal("the leftmost object", "one"),
    Goal("the ball behind the box"),
    Goal("both cylinders", "all"),
    Goal("the green thing", "one"),
    Goal("all the objects that are not red", "all"),
    Goal("the mug between the cone and the ball", "one"),
    Goal("the purple ring"),
    Goal("the largest bottle", "one"),
)
SINGLE = (Goal("the red mug", "one"), Goal("the blue ball", "one"), Goal("the leftmost object", "one"), Goal("the green box", "one"))
"""Goals with one region each, as the referring benchmarks of the paper ask."""


def mixed_goals(count: int) -> list[Goal]:
    """So many goals of kinds auto, one and all about attributes, relations, plurals and what is absent; they repeat after ten."""
    return [MIXED[index % len(MIXED)] for index in range(count)]


def single_goals(count: int) -> list[Goal]:
    """The same texts, each asking for one region: a network that has learned nothing never ends a list."""
    return [replace(goal, kind="one") for goal in mixed_goals(count)]
