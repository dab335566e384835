"""Navigation episodes in Miniworld's rooms: a mobile base and a goal in words with its ground truth. An
episode depends on its seed only.

The base is a disc that turns and drives; walls and furniture stop it. World axes: x, y on the floor, z up,
metres.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.miniworld_rooms import FAR, Furnishing, House, Room, Rooms
from groma_ros.simulation.miniworld_world import FINISHES, against_wall, draw_house, furnish, inside, reach_of
from groma_ros.simulation.world_objects import (
    MINIWORLD_KINDS,
    WORLD_KINDS,
    Array,
    Thing,
    avoided_words,
    draw_things,
    is_clear,
)
from groma_ros.types import FloatArray

STEP = 0.05
WIDTH, HEIGHT = 480, 360
RADIUS = 0.25
EYE_HEIGHT, EYE_PITCH, EYE_FIELD = 0.6, -0.3, float(np.deg2rad(52))
"""Height in metres, pitch and vertical field of view in radians of the base's camera. Its picture begins
0.64 m ahead on the floor, so that what the base stops in front of is in view."""
MAX_SPEED, MAX_TURN = 0.6, 1.2
ARRIVED = 1.0
ABSENT_ONE_IN = 4
"""One in this many goals names nothing that is present."""
LAYOUTS = ("room", "hall", "two rooms", "three rooms")
_CELL = 0.1
_TRIES = 5  # for one kind of goals
_SHORTEST = 1.0  # minimum distance in metres that the base must drive
_NEXT_TO, _NOT_NEXT_TO = 0.9, 1.6  # metres between outlines
_MIN_SEEN = 0.0006  # minimum share of the picture for something to be in view
_ROOM_BETWEEN = 0.75  # metres, width that the base needs to pass


@dataclass(frozen=True, eq=False)
class CourseEpisode:
    """A goal with its ground truth."""

    seed: int
    layout: str
    house: House
    things: tuple[Thing, ...]
    goal: SceneGoal
    """Its targets are indices into the furniture."""
    start: tuple[float, float, float]
    shortest: float
    """Length of the shortest path to within `ARRIVED` of a target, metres; 0 for an absent goal."""
    in_view: bool
    """Whether a target is visible at the start."""


class Course:
    """Rooms of one episode after another and the base in them, for use by one thread."""

    def __init__(self) -> None:
        self.rooms = Rooms(WIDTH, HEIGHT, 1)
        self.episode: CourseEpisode | None = None
        self._place: Array = np.zeros(2)
        self._turn = 0.0
        self._speed = self._spin = 0.0
        self._looked: tuple[Any, FloatArray] | None = None
        self._commanded = 99.0
        self.seconds = self.path = 0.0
        self.bumps = 0
        self.trail: list[tuple[float, float]] = []

    def reset(self, seed: int) -> CourseEpisode:
        """Build the rooms of a seed and put the base at its start."""
        attempt = 0
        episode = None
        while episode is None:
            attempt += 1
            episode = self._draw(seed, attempt, np.random.default_rng([seed, attempt, 19]))
        self.episode = episode
        self._place, self._turn = np.array(episode.start[:2]), episode.start[2]
        self._speed = self._spin = 0.0
        self.seconds = self.path = 0.0
        self.bumps = 0
        self.trail = [(float(self._place[0]), float(self._place[1]))]
        return episode

    def _draw(self, seed: int, attempt: int, rng: np.random.Generator) -> CourseEpisode | None:
        layout = LAYOUTS[seed // ABSENT_ONE_IN % len(LAYOUTS)] if rng.random() < 0.8 else "room"
        house = draw_house(rng, layout, True)
        kinds = [kind for kind in MINIWORLD_KINDS if kind.name != "building"]
        things = draw_things(rng, kinds, int(rng.integers(5, 8)), True, FINISHES)
        placed: list[Furnishing] = []
        kept: list[Thing] = []
        for thing in things:
            item = self._spot(rng, house, thing, placed)
            if item is not None:
                placed.append(item)
                kept.append(thing)
        if len(placed) < 4:
            return None
        house = replace(house, furniture=tuple(placed))
        self.rooms.enter(house)
        self._names = kept
        for _ in range(60):
            room = house.rooms[0]
            x, y = (float(rng.uniform(a + 0.6, b - 0.6)) for a, b in zip(room.low, room.high))
            if self.rooms.is_free((x, y), RADIUS + 0.3):
                break
        else:
            return None
        self._place, self._turn = np.array([x, y]), float(rng.uniform(-np.pi, np.pi))
        goal = self._goal(seed, attempt, rng)
        if goal is None:
            return None
        in_view = any(self._seen(index) for index in goal.targets)
        # Half of the targets are not in view at the start.
        if (
            goal.targets
            and goal.kind != "superlative"
            and in_view != (seed % 2 == 0)
            and attempt <= 2 * _TRIES
        ):
            return None
        ways = self._ways((x, y)) if goal.targets else []
        lengths = [ways[index] for index in goal.targets]
        if lengths and not _SHORTEST <= min(lengths) < np.inf:
            return None
        shortest = float(min(lengths, default=0.0))
        return CourseEpisode(seed, layout, house, tuple(kept), goal, (x, y, self._turn), shortest, in_view)

    def _spot(
        self, rng: np.random.Generator, house: House, thing: Thing, placed: list[Furnishing]
    ) -> Furnishing | None:
        """Draw a free place for an object, sometimes close to another one."""
        for _ in range(40):
            room: Room = house.rooms[int(rng.integers(len(house.rooms)))]
            x, y = (float(rng.uniform(a, b)) for a, b in zip(room.low, room.high))
            item = furnish(rng, thing, (x, y), float(rng.uniform(-np.pi, np.pi)))
            reach = reach_of(item)
            near = placed and rng.random() < 0.35 and thing.kind.name != "door"
            if near:
                other = placed[int(rng.integers(len(placed)))]
                angle = rng.uniform(-np.pi, np.pi)
                away = reach + reach_of(other) + float(rng.uniform(0.1, 0.4))
                x, y = other.place[0] + away * np.cos(angle), other.place[1] + away * np.sin(angle)
                item = replace(item, place=(float(x), float(y)))
            if thing.kind.name == "door":
                item = against_wall(item, room)
                margin = 0.05
            else:
                margin = reach + 0.05
            blocked = any(
                abs(item.place[opening.axis] - (opening.low + opening.high) / 2) < 1.3
                and abs(item.place[1 - opening.axis] - house.rooms[0].high[1 - opening.axis]) < 1.2 + reach
                for opening in house.openings
            )
            if blocked or not inside(house, item.place, margin):
                continue
            gaps = [
                float(np.hypot(*np.subtract(item.place, other.place))) - reach - reach_of(other)
                for other in placed
            ]
            if all(gap > (0.05 if near else _ROOM_BETWEEN) for gap in gaps):
                return item
        return None

    def _goal(self, seed: int, attempt: int, rng: np.random.Generator) -> SceneGoal | None:
        """Draw a goal of the kind determined by the seed; every fourth is absent."""
        things = self._names
        avoided = avoided_words(things)
        kinds = [thing.kind.name for thing in things]
        if seed % ABSENT_ONE_IN == ABSENT_ONE_IN - 1:
            wanted = "absent"
        else:
            # Replace a kind of goal that is rarely possible in these rooms by the next one, to save time.
            wanted = ("attribute", "relation", "superlative")[(seed + (attempt - 1) // _TRIES) % 3]
        options: list[SceneGoal] = []
        for _ in range(40):
            goal = {
                "absent": self._absent,
                "attribute": self._attribute,
                "relation": self._relation,
                "superlative": self._superlative,
            }[wanted](rng)
            if goal is not None and is_clear(goal.text, kinds, avoided):
                options.append(goal)
                break
        return options[0] if options else None

    def _unique(self, rng: np.random.Generator) -> tuple[str, int] | None:
        """Draw a name that fits exactly one object, and its index."""
        index = int(rng.integers(len(self._names)))
        thing = self._names[index]
        same = [other for other in self._names if other.kind.name == thing.kind.name]
        if len(same) == 1:
            colour = f"{thing.colour} " if thing.colour and rng.random() < 0.5 else ""
            return f"{colour}{thing.kind.name}", index
        if (
            thing.colour
            and sum(other.colour == thing.colour for other in same) == 1
            and all(o.colour for o in same)
        ):
            return f"{thing.colour} {thing.kind.name}", index
        return None

    def _attribute(self, rng: np.random.Generator) -> SceneGoal | None:
        found = self._unique(rng)
        return SceneGoal(f"{_verb(rng)}the {found[0]}", "attribute", (found[1],)) if found else None

    def _relation(self, rng: np.random.Generator) -> SceneGoal | None:
        """The one of its kind that is next to a named object, with the others of the kind clearly away from
        it."""
        found = self._unique(rng)
        if found is None:
            return None
        name, anchor = found
        gaps = {
            i: self.rooms.distance(self._item(anchor).place, i) - reach_of(self._item(anchor)) * 0.7
            for i in range(len(self._names))
            if i != anchor
        }
        near = [i for i, gap in gaps.items() if gap < _NEXT_TO]
        unclear = [i for i, gap in gaps.items() if _NEXT_TO <= gap < _NOT_NEXT_TO]
        if not near:
            return None
        target = near[int(rng.integers(len(near)))]
        kind = self._names[target].kind.name
        if kind == self._names[anchor].kind.name:
            return None
        rivals = [i for i in (*near, *unclear) if i != target and self._names[i].kind.name == kind]
        if rivals:
            return None
        return SceneGoal(f"{_verb(rng)}the {kind} next to the {name}", "relation", (target,))

    def _superlative(self, rng: np.random.Generator) -> SceneGoal | None:
        """The leftmost, rightmost or nearest of the objects in view at the start."""
        camera = self.camera()
        seen = [i for i in range(len(self._names)) if self._seen(i)]
        groups = sorted({self._names[i].kind.name for i in seen})  # a set has no order of its own
        members = {name: [i for i in seen if self._names[i].kind.name == name] for name in groups}
        several = [name for name, found in members.items() if len(found) >= 2]
        if several:
            name = several[int(rng.integers(len(several)))]
            group, noun = members[name], name
        elif len(seen) >= 2:
            group, noun = seen, "object"
        else:
            return None
        middles = np.array([self.rooms.points(i).mean(0) for i in group])
        pixels, depths = camera.project(middles)[:, 0] / WIDTH, camera.to_optical(middles)[:, 2]
        word = ("leftmost", "rightmost", "nearest")[int(rng.integers(3))]
        measure = {"leftmost": pixels, "rightmost": -pixels, "nearest": depths / 6}[word]
        order = np.argsort(measure)
        if measure[order[1]] - measure[order[0]] < 0.08:
            return None
        return SceneGoal(f"{_verb(rng)}the {word} {noun}", "superlative", (group[int(order[0])],))

    def _absent(self, rng: np.random.Generator) -> SceneGoal | None:
        here = {thing.kind.name for thing in self._names}
        ours = [kind.name for kind in MINIWORLD_KINDS]
        others = [name for name in (*ours, *WORLD_KINDS) if name not in here]
        name = others[int(rng.integers(len(others)))]
        if any(name in kind or kind in name for kind in here) or (name == "carton" and "box" in here):
            return None
        return SceneGoal(f"{_verb(rng)}the {name}", "absent", ())

    def _item(self, index: int) -> Furnishing:
        house = self.rooms.house
        return house.furniture[index]

    def camera(self) -> Camera:
        """The base's camera at its current pose."""
        x, y = (float(value) for value in self._place)
        return self.rooms.camera((x, y), self._turn, EYE_HEIGHT, EYE_PITCH, EYE_FIELD)

    def picture(self) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres."""
        return self.rooms.frame(self.camera())

    def box(self, index: int) -> list[float] | None:
        """xyxy box of the visible part of an object; None if it is not in view."""
        camera = self.camera()
        if self._looked is None or self._looked[0] != (self.rooms.house, self.pose()):
            self._looked = (self.rooms.house, self.pose()), self.rooms.frame(camera)[1]
        # Objects behind the camera need not be drawn.
        if camera.to_optical(self.rooms.points(index))[:, 2].max() < 0:
            return None
        alone = self.rooms.alone(camera, index)
        mask = (alone < FAR * 0.9) & (alone <= self._looked[1])
        if mask.sum() < _MIN_SEEN * mask.size:
            return None
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]

    def _seen(self, index: int) -> bool:
        return self.box(index) is not None

    def pose(self) -> tuple[float, float, float]:
        """Pose of the base: x, y, and rotation, radians."""
        return float(self._place[0]), float(self._place[1]), self._turn

    def velocity(self) -> tuple[float, float]:
        """Forward speed, metres per second, and rotation to the left, radians per second."""
        return self._speed, self._spin

    def drive(self, speed: float, spin: float) -> None:
        """Set the velocity; the base stops if no further command comes within half a second."""
        self._speed = float(np.clip(speed, -MAX_SPEED, MAX_SPEED))
        self._spin = float(np.clip(spin, -MAX_TURN, MAX_TURN))
        self._commanded = 0.0

    @property
    def command_age(self) -> float:
        """Seconds since the last command."""
        return self._commanded

    @property
    def is_still(self) -> bool:
        """Whether the base neither drives nor rotates."""
        return self._speed == 0 and self._spin == 0

    def step(self) -> None:
        """Advance the simulation by `STEP` seconds."""
        self.seconds += STEP
        self._commanded += STEP
        if self._commanded > 0.5:
            self._speed = self._spin = 0.0
        self._turn = float((self._turn + self._spin * STEP + np.pi) % (2 * np.pi) - np.pi)
        if self._speed == 0:
            return
        ahead = self._place + self._speed * STEP * np.array([np.cos(self._turn), np.sin(self._turn)])
        if self.rooms.is_free((float(ahead[0]), float(ahead[1])), RADIUS):
            self.path += float(np.linalg.norm(ahead - self._place))
            self._place = ahead
            self.trail.append((float(ahead[0]), float(ahead[1])))
        else:
            self.bumps += 1

    def score(self) -> dict[str, Any]:
        """Current result: distance to the nearest target, whether it is in view, path length; metres."""
        assert self.episode is not None
        place = self.pose()[:2]
        targets = self.episode.goal.targets
        distances = {index: self.rooms.distance(place, index) for index in targets}
        nearest = min(distances, key=lambda index: distances[index], default=-1)
        return {
            "distance": round(distances.get(nearest, -1.0), 3),
            "in_view": bool(targets) and self._seen(nearest),
            "path": round(self.path, 2),
            "shortest": round(self.episode.shortest, 2),
            "bumps": self.bumps,
            "seconds": round(self.seconds, 1),
        }

    def _ways(self, start: tuple[float, float]) -> list[float]:
        """Length in metres of the shortest path to within `ARRIVED` of each object; infinity if there is
        none."""
        rooms = self.rooms.house.rooms
        low = np.min([room.low for room in rooms], axis=0)
        size = np.ceil((np.max([room.high for room in rooms], axis=0) - low) / _CELL).astype(int) + 1
        free: dict[tuple[int, int], bool] = {}
        best = {(round((start[0] - low[0]) / _CELL), round((start[1] - low[1]) / _CELL)): 0.0}
        queue = [(0.0, next(iter(best)))]
        while queue:
            so_far, (i, j) = heapq.heappop(queue)
            if so_far > best[(i, j)]:
                continue
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                cell = (i + di, j + dj)
                if not (0 <= cell[0] < size[0] and 0 <= cell[1] < size[1]):
                    continue
                if cell not in free:
                    place = (float(low[0] + cell[0] * _CELL), float(low[1] + cell[1] * _CELL))
                    free[cell] = self.rooms.is_free(place, RADIUS)
                length = so_far + _CELL * float(np.hypot(di, dj))
                if free[cell] and length < best.get(cell, np.inf):
                    best[cell] = length
                    heapq.heappush(queue, (length, cell))
        ways = [np.inf] * len(self._names)
        for (i, j), length in best.items():
            place = (float(low[0] + i * _CELL), float(low[1] + j * _CELL))
            for index in range(len(ways)):
                if length < ways[index] and self.rooms.distance(place, index) <= ARRIVED:
                    ways[index] = length
        return ways


def _verb(rng: np.random.Generator) -> str:
    return ("", "go to ", "drive to ", "navigate to ")[int(rng.integers(4))]
