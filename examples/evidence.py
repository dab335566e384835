"""Evidence from several views about where the object of a goal is, in a fixed frame.

A single answer can be wrong and still have a high presence. Wrong answers rarely agree: from another position
the model names another object or none. `Evidence` keeps every place that was named, adds up the log-odds of
the views that show it, and tells when one place is found. Presence must be calibrated (`groma calibrate`):
the log-odds are those of the probabilities in the answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from examples.ask import Answer

Array = NDArray[np.float64]

FOUND = 3.0
"""Log-odds from which a place is found: 20 to 1."""
LEAD = 1.0
"""Log-odds by which a found place must exceed every other one."""
LEAST, MOST = 0.1, 0.9
"""Limits of the probability that one view may give a place: a single view, at 2.2 at most, finds nothing."""
SAME = 0.8
"""Maximum distance in metres between two positions of the same object."""
APART = 0.5
"""Views from positions closer than this show nearly the same picture and count as one. Metres."""
FIELD, FAR = 0.4, 4.0
"""A place is in view within this angle from the heading, radians, and this distance, metres."""
NEAR = 1.0
"""An absent answer says nothing about a place nearer than this: the object may fill the picture, and objects
that the goal mentions beside it may be outside. Metres."""

BESIDE = 1.2
"""Maximum distance in metres between the outlines of two objects that are next to each other."""
MISSING = 0.3
"""Presence below which the neighbour that a goal mentions is missing from a view."""
_BESIDE = re.compile(r"\b(?:next to|beside|close to|near)\s+(.+)$", re.IGNORECASE)


@dataclass
class Place:
    """A place where an object was named."""

    answer: Answer
    """The answer given from the nearest position, which measures the object's pose best."""
    distance: float
    """Distance in metres that it was given from."""
    views: list[tuple[Array, list[float]]] = field(default_factory=list)
    """Positions (x, y) of the base, metres, and log-odds of the views from around there."""
    given_up: float = -np.inf
    """Log-odds when an approach to it ended without arrival; minus infinity before."""

    @property
    def log_odds(self) -> float:
        """Sum over the positions of the mean of their views."""
        return float(sum(np.mean(values) for _, values in self.views))

    def note(self, here: Array, chance: float) -> None:
        """Add a view from a position with the probability that this is the object."""
        chance = min(max(chance, LEAST), MOST)
        value = float(np.log(chance / (1 - chance)))
        for other, values in self.views:
            if float(np.hypot(*(here - other))) < APART:
                values.append(value)
                return
        self.views.append((np.array(here), [value]))


class Evidence:
    """The places named for one goal. frame: that of the answers' positions; others are ignored."""

    def __init__(self, frame: str) -> None:
        self._frame = frame
        self.places: list[Place] = []

    def add(self, answer: Answer, here: Array, heading: float) -> Place | None:
        """Add the answer of a view from a position (x, y) with a heading in radians. Returns the place it
        names; None if it is absent or has no pose in the frame.

        The answer's margin divides its presence between the named place and the others in view.
        """
        named = None
        if answer.status != "absent" and answer.frame == self._frame:
            named = self._at(answer, here)
            named.note(here, answer.chance)
        elif answer.status != "absent":
            return None
        nearest = NEAR if named is None else 0.0
        for place in self.places:
            if place is not named and in_view(place.answer, here, heading, nearest):
                place.note(here, answer.rest)
        return named

    def is_found(self, place: Place) -> bool:
        """Whether the evidence for a place suffices, by itself and against every other one."""
        rivals = [other.log_odds for other in self.places if other is not place]
        return place.log_odds >= max([FOUND, *(rival + LEAD for rival in rivals)])

    def next(self, least: float = -1.0) -> Place | None:
        """The most likely place above these log-odds that was not given up, or has gained `LEAD` since."""
        worth = [
            place
            for place in self.places
            if place.log_odds > least and place.log_odds > place.given_up + LEAD
        ]
        return max(worth, key=lambda place: place.log_odds, default=None)

    def described(self) -> str:
        """A sentence about the most likely place; empty if none was named."""
        best = max(self.places, key=lambda place: place.log_odds, default=None)
        if best is None:
            return ""
        x, y = best.answer.position[:2]
        probability = 1 / (1 + np.exp(-best.log_odds))
        positions = f"{len(best.views)} position{'s' * (len(best.views) > 1)}"
        return (
            f"The most likely object, at ({x:.1f}, {y:.1f}), is {probability:.2f} likely after views from "
            f"{positions}."
        )

    def _at(self, answer: Answer, here: Array) -> Place:
        """The place of an answer, a new one if there is none within `SAME`."""
        away = float(np.hypot(*(answer.position[:2] - here)))
        near = min(self.places, key=lambda place: distance(place.answer, answer), default=None)
        if near is None or distance(near.answer, answer) >= SAME:
            near = Place(answer, away)
            self.places.append(near)
        elif away <= near.distance:
            near.answer, near.distance = answer, away
        return near


def neighbour(goal: str) -> str | None:
    """The object that a goal's object is next to: "the pink chair" for "the barrel next to the pink chair".
    None for other goals."""
    found = _BESIDE.search(goal.strip())
    return found[1] if found else None


def with_neighbour(answer: Answer, other: Answer) -> Answer:
    """Limit an answer by the answer about the neighbour that its goal mentions, given from the same position.

    A model that overlooks half of a goal names any barrel for "the barrel next to the pink chair". If the
    chair is missing from the view, is not beside that barrel, or is the same object, the answer is no more
    likely than that.
    """
    if other.status == "absent":
        limit = other.present if other.present < MISSING else 1.0
    elif other.frame and other.frame == answer.frame and not _are_beside(answer, other):
        limit = other.rest
    else:
        limit = 1.0
    return replace(answer, present=min(answer.present, limit), margin=min(answer.margin, limit))


def _are_beside(one: Answer, other: Answer) -> bool:
    """Whether two objects are at most `BESIDE` apart and neither has its centre inside the other. An object's
    width is the mean of its sides."""
    reaches = [(item.size[0] + item.size[1]) / 4 for item in (one, other)]
    return max(reaches) <= distance(one, other) <= sum(reaches) + BESIDE


def in_view(answer: Answer, here: Array, heading: float, nearest: float = 0.0) -> bool:
    """Whether an object is within `FIELD` and `FAR` of a view and not nearer than `nearest` metres. What
    hides it is not considered."""
    way = answer.position[:2] - here
    aside = float(np.angle(np.exp(1j * (np.arctan2(way[1], way[0]) - heading))))
    return abs(aside) < FIELD and nearest <= float(np.hypot(*way)) < FAR


def distance(one: Answer, other: Answer) -> float:
    """Distance in metres between the centres of two objects on the floor."""
    return float(np.hypot(*(one.position[:2] - other.position[:2])))
