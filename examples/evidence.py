"""Evidence from several views about where the object of a goal is, in a fixed frame.

A single answer can be wrong and still have a high presence. Wrong answers rarely agree: from another position
the model names another object or none. `Evidence` keeps every place that was named, adds up the log-odds of
the views that show it, and tells when one place is found. Presence must be calibrated (`groma calibrate`):
the log-odds are those of the probabilities in the answers, less `DOUBT` where a place is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from examples.ask import Answer
from examples.goal_words import parts

Array = NDArray[np.float64]

FOUND = 3.0
"""Log-odds from which a place is found: 20 to 1."""
LEAD = 1.0
"""Log-odds by which a found place must exceed every other one."""
DOUBT = 1.7
"""Log-odds by which a view that names a place counts less than its probability says: a search asks in many
more views without the object than with it, so that wrong namings are about as frequent as right ones (151 of
315 in 71 rooms of Miniworld), while those of a probability of 0.98 and more are right (61 of 64)."""
ONE_VIEW = 2.5
"""Maximum log-odds of one view that names a place, so that a single view finds nothing."""
WORTH = -2.0
"""Log-odds from which a place is worth a look from nearer: of two alike, each has -1.7 after one view."""
LEAST = 0.1
"""Least probability that an answer may leave a place."""
OVERLOOKED = 0.18
"""Least probability that a view which names nothing gives a place: objects in view are overlooked more often
(in 0.2 of the views of Miniworld) than others are named in their place."""
SAME = 0.8
"""Maximum distance in metres between two positions of the same object."""
APART = 0.5
"""Views from positions closer than this show nearly the same picture and count as one. Metres."""
FIELD, FAR = 0.4, 4.0
"""A place is in view within this angle from the heading, radians, and this distance, metres."""
NEAR, NEAR_TALL, NEAR_MOST = 1.0, 1.8, 3.4
"""An absent answer says nothing about a place nearer than this, in metres, and in heights of the object, at
most in metres: the object may not fit the picture, and what the goal mentions beside it may be outside."""

BESIDE = 1.2
"""Maximum distance in metres between the outlines of two objects that are next to each other."""
OVERLAP = 0.8
"""Two objects are at least this share of the sum of their shorter half sides apart; nearer ones are one
object, measured twice."""
UNSEEN = 0.4
"""Probability that the neighbour which a goal mentions stands beside a place where none was named."""
FLAT = 0.03, 0.4
"""Width below which and length above which an object is flat, metres. What is named as flat is a patch of a
wall (34 of 34 in those rooms), unless the goal means a flat thing."""
_FLAT_THINGS = re.compile(
    r"\b(doors?|doorways?|gates?|windows?|pictures?|paintings?|posters?|signs?|\w*boards?|screens?"
    r"|monitors?|tvs?|televisions?|banners?|mirrors?|curtains?|shutters?|panels?|walls?|maps?)\b",
    re.IGNORECASE,
)


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
    height: float = 0.0
    """Greatest height of the object in any view, metres: from nearby its upper part is not in the picture."""

    @property
    def log_odds(self) -> float:
        """Sum over the positions of the mean of their views."""
        return float(sum(np.mean(values) for _, values in self.views))

    def note(self, here: Array, value: float) -> None:
        """Add a view from a position with the log-odds that this is the object."""
        for other, values in self.views:
            if float(np.hypot(*(here - other))) < APART:
                values.append(value)
                return
        self.views.append((np.array(here), [value]))


class Evidence:
    """The places named for one goal.

    frame: that of the answers' positions; others are ignored. neighbours: the evidence for what the goal's
    object is next to, if the goal mentions that; the two need never be in view together. doubt: see `DOUBT`;
    0 for a neighbour, which is named together with the object.
    """

    def __init__(self, frame: str, neighbours: Evidence | None = None, doubt: float = DOUBT) -> None:
        self._frame, self._doubt = frame, doubt
        self.neighbours = neighbours
        self.places: list[Place] = []

    def log_odds(self, place: Place) -> float:
        """Log-odds that a place is the object that is meant: that it is such an object, and that the most
        likely neighbour stands beside it."""
        if self.neighbours is None:
            return place.log_odds
        beside = [other for other in self.neighbours.places if are_beside(place.answer, other.answer)]
        neighbour = max((_probability(other.log_odds) for other in beside), default=UNSEEN)
        return _log_odds(_probability(place.log_odds) * neighbour)

    def add(self, answer: Answer, here: Array, heading: float) -> Place | None:
        """Add the answer of a view from a position (x, y) with a heading in radians. Returns the place it
        names; None if it is absent or has no pose in the frame.

        The answer's margin divides its presence between the named place and the others in view. With
        neighbours the answer is about any such object, so that naming one says nothing about the others.
        """
        named = None
        if answer.status != "absent" and answer.frame == self._frame:
            value = _named(answer, self.neighbours is not None, self._doubt)
            named = self._at(answer, here)
            named.note(here, value)
            if self.neighbours is not None or answer.count > 1 or is_flat(answer):
                return named
            # No place that is not named gains by a view what the named one does not.
            others = min(_log_odds(max(answer.rest, LEAST)), value)
        elif answer.status != "absent":
            return None
        else:
            others = min(_log_odds(max(answer.rest, OVERLOOKED)), 0.0)
        for place in self.places:
            nearest = 0.0 if named is not None else max(NEAR, min(NEAR_TALL * place.height, NEAR_MOST))
            if place is not named and in_view(place.answer, here, heading, nearest):
                place.note(here, others)
        return named

    def is_found(self, place: Place) -> bool:
        """Whether the evidence for a place suffices, by itself and against every other one."""
        rivals = [self.log_odds(other) for other in self.places if other is not place]
        return self.log_odds(place) >= max([FOUND, *(rival + LEAD for rival in rivals)])

    def next(self, least: float = WORTH) -> Place | None:
        """The most likely place above these log-odds that was not given up, or has gained `LEAD` since, or is
        found now."""
        worth = [place for place in self.places if self.log_odds(place) > least and self._is_worth(place)]
        return max(worth, key=self.log_odds, default=None)

    def _is_worth(self, place: Place) -> bool:
        """Whether a place was not given up, or speaks more for itself since."""
        gained = self.log_odds(place) > place.given_up + LEAD
        return gained or (place.given_up < FOUND and self.is_found(place))

    def most_likely(self) -> Place | None:
        """The most likely place; None if none was named."""
        return max(self.places, key=self.log_odds, default=None)

    def described(self) -> str:
        """A sentence about the most likely place; empty if none was named."""
        best = self.most_likely()
        if best is None:
            return ""
        x, y = best.answer.position[:2]
        probability = _probability(self.log_odds(best))
        positions = f"{len(best.views)} position{'s' * (len(best.views) > 1)}"
        return (
            f"The most likely object, at ({x:.1f}, {y:.1f}), is {probability:.2f} likely after views from "
            f"{positions}."
        )

    def _at(self, answer: Answer, here: Array) -> Place:
        """The place of an answer, a new one if there is none within `SAME` or half of the object's length:
        the centre of a long object that is partly in view moves with every view."""
        away = float(np.hypot(*(answer.position[:2] - here)))
        near = min(self.places, key=lambda place: distance(place.answer, answer), default=None)
        if near is None or distance(near.answer, answer) >= max(
            SAME, near.answer.size[0] / 2, answer.size[0] / 2
        ):
            near = Place(answer, away)
            self.places.append(near)
        elif away <= near.distance:
            near.answer, near.distance = answer, away
        near.height = max(near.height, answer.size[2])
        return near


def are_beside(one: Answer, other: Answer) -> bool:
    """Whether two answers are two objects at most `BESIDE` apart. An object's reach is the mean of its half
    sides."""
    reach = sum((item.size[0] + item.size[1]) / 4 for item in (one, other))
    return not are_one(one, other) and distance(one, other) <= reach + BESIDE


def are_one(one: Answer, other: Answer) -> bool:
    """Whether two answers are so near each other that they are one object, see `OVERLAP`."""
    return distance(one, other) < OVERLAP * sum(min(item.size[:2]) / 2 for item in (one, other))


def is_flat(answer: Answer) -> bool:
    """Whether an answer may be a patch of a wall, although its goal means nothing flat. A cupboard may be one
    exactly from its front, and is not from its side."""
    width, length = sorted(answer.size[:2])
    meant = (parts(answer.goal) or (answer.goal,))[0]
    return width < FLAT[0] and length > FLAT[1] and _FLAT_THINGS.search(meant) is None


def _named(answer: Answer, any_will_do: bool, doubt: float) -> float:
    """Log-odds that a view gives the place it names. any_will_do: the answer is about any such object."""
    chance = max(answer.present if any_will_do else answer.chance, LEAST)
    value = min(_log_odds(chance) - doubt, ONE_VIEW)
    return min(value, 0.0) if is_flat(answer) else value


def _log_odds(probability: float) -> float:
    probability = min(probability, 1 - 1e-9)
    return float(np.log(probability / (1 - probability)))


def _probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def in_view(answer: Answer, here: Array, heading: float, nearest: float = 0.0) -> bool:
    """Whether an object is within `FIELD` and `FAR` of a view and not nearer than `nearest` metres. What
    hides it is not considered."""
    way = answer.position[:2] - here
    aside = float(np.angle(np.exp(1j * (np.arctan2(way[1], way[0]) - heading))))
    return abs(aside) < FIELD and nearest <= float(np.hypot(*way)) < FAR


def distance(one: Answer, other: Answer) -> float:
    """Distance in metres between the centres of two objects on the floor."""
    return float(np.hypot(*(one.position[:2] - other.position[:2])))
