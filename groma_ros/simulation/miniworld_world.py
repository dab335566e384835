"""The world `miniworld`: rooms, corridors and yards with furniture, seen by a camera on a robot's mast.

Rooms, meshes and textures are Miniworld's (Farama Foundation, Apache-2.0 licence). Requires the environment
of `make setup-sim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.colours import COLOURS, paint
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.miniworld_rooms import FAR, Furnishing, House, Opening, Room, Rooms, texture_names
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.world_objects import (
    MINIWORLD_KINDS,
    OWN,
    Array,
    Thing,
    WorldSample,
    avoided_words,
    draw_things,
    held_out_seed,
    scene_object,
    split,
)
from groma_ros.types import FloatArray

LAYOUTS = ("room", "hall", "corridor", "two rooms", "yard")
HELD_OUT_LAYOUT = "three rooms"
MIN_OBJECTS, MAX_OBJECTS = 3, 9
HEIGHTS = {
    "chair": (0.8, 1.2),
    "desk": (0.7, 0.9),
    "barrel": (0.7, 1.1),
    "barrier": (0.5, 1.0),
    "cone": (0.3, 0.8),
    "door": (1.9, 2.2),
    "duck": (0.25, 0.9),
    "keycard": (0.3, 0.6),
    "medkit": (0.3, 0.6),
    "potion": (0.3, 0.7),
    "tree": (1.2, 2.4),
    "pine tree": (1.2, 2.5),
    "building": (1.0, 2.2),
    "key": (0.3, 0.5),
    "ball": (0.25, 0.8),
    "box": (0.25, 0.9),
}
"""Smallest and largest height of each kind, metres."""
_PAINTED = ("chair", "desk", "barrel", "barrier", "door", "duck", "potion", "key", "ball", "box")
_UNPAINTED = tuple(kind.name for kind in MINIWORLD_KINDS if kind.name not in ("key", "ball", "box"))
FINISHES = {
    kind.name: (*((OWN,) if kind.name in _UNPAINTED else ()), *(COLOURS if kind.name in _PAINTED else ()))
    for kind in MINIWORLD_KINDS
}
_WALLS = (
    "brick_wall_1",
    "cardboard_1",
    "cardboard_4",
    "cinder_blocks_1",
    "concrete_1",
    "concrete_2",
    "concrete_3",
    "concrete_4",
    "concrete_tiles_1",
    "drywall_1",
    "marble_1",
    "marble_2",
    "metal_grill_1",
    "rock_1",
    "stucco_1",
    "white_1",
    "wood_1",
    "wood_2",
    "wood_planks_1",
)
_FLOORS = (
    "asphalt_1",
    "cardboard_3",
    "concrete_1",
    "concrete_2",
    "concrete_3",
    "concrete_4",
    "concrete_tiles_1",
    "floor_tiles_bw_1",
    "floor_tiles_white",
    "grass_1",
    "grass_2",
    "marble_1",
    "marble_2",
    "rock_1",
    "stucco_1",
    "wood_1",
    "wood_2",
    "wood_planks_1",
)
_CEILINGS = (
    "ceiling_tile_noborder_1",
    "ceiling_tiles_1",
    "concrete_1",
    "concrete_3",
    "drywall_1",
    "stucco_1",
    "wood_2",
    "white_1",
)
_YARD_FLOORS = ("asphalt_1", "grass_1", "grass_2", "concrete_tiles_1", "rock_1")
_SHADES = 3  # number of shades of a colour; each is kept once created
_GAP = 0.15
_EYE_ROOM = 0.3


def shade(rng: np.random.Generator, finish: str) -> tuple[float, float, float]:
    """Draw one of a few shades of a finish's colour; white for an original look."""
    if finish == OWN:
        return (1.0, 1.0, 1.0)
    number = int(rng.integers(_SHADES))
    return paint(np.random.default_rng([number, *finish.encode()]), finish)


def furnish(rng: np.random.Generator, thing: Thing, place: tuple[float, float], turn: float) -> Furnishing:
    """Put an object at a place, in a typical size of its kind."""
    low, high = HEIGHTS[thing.kind.name]
    height = float(rng.uniform(low, high))
    x, y, z = (float(rng.uniform(low, high)) for _ in range(3))
    return Furnishing(thing.kind.name, thing.finish, shade(rng, thing.finish), height, (x, y, z), place, turn)


def draw_house(rng: np.random.Generator, layout: str, held_out: bool) -> House:
    """Draw empty rooms of a layout, with textures of one side (training or held out); the camera is in the
    first room."""
    known = set(texture_names())

    def one(names: Sequence[str]) -> str:
        options = [name for name in split(names, held_out) if name in known] or list(names)
        return options[int(rng.integers(len(options)))]

    def room(low: tuple[float, float], high: tuple[float, float], height: float) -> Room:
        return Room(low, high, one(_WALLS), one(_FLOORS), one(_CEILINGS), height)

    height = float(rng.uniform(2.5, 3.2))
    wide, deep = float(rng.uniform(4.5, 8)), float(rng.uniform(4.5, 8))
    openings: tuple[Opening, ...] = ()
    if layout == "corridor":
        rooms = [room((0, 0), (float(rng.uniform(8, 12)), float(rng.uniform(2.6, 3.4))), height)]
    elif layout == "hall":
        rooms = [room((0, 0), (float(rng.uniform(8, 12)), float(rng.uniform(7, 10))), height + 0.8)]
    elif layout == "yard":
        yard = Room(
            (0, 0), (float(rng.uniform(9, 14)), float(rng.uniform(8, 12))), one(_WALLS), one(_YARD_FLOORS), ""
        )
        rooms = [replace(yard, height=float(rng.uniform(1.2, 3)))]
    elif layout == "room":
        rooms = [room((0, 0), (wide, deep), height)]
    else:
        rooms = [
            room((0, 0), (wide, deep), height),
            room((wide + 0.1, 0), (wide + float(rng.uniform(4, 7)), deep), height),
        ]
        middle = deep / 2 + float(rng.uniform(-0.25, 0.25)) * deep
        openings = (Opening((0, 1), 1, middle - 0.7, middle + 0.7),)
        if layout == HELD_OUT_LAYOUT:
            rooms.append(room((0, deep + 0.1), (wide, deep + float(rng.uniform(4, 7))), height))
            middle = wide / 2 + float(rng.uniform(-0.25, 0.25)) * wide
            openings += (Opening((0, 2), 0, middle - 0.7, middle + 0.7),)
    x, y = rooms[0].high
    lamp = (float(rng.uniform(0, x)), float(rng.uniform(0, y)), float(rng.uniform(2.2, 5)))
    tint = 1 + rng.uniform(-0.08, 0.08) * np.array([1, 0, -1])
    light, ambient = rng.uniform(0.45, 0.8) * tint, rng.uniform(0.35, 0.55) * tint
    sky = rng.uniform((0.2, 0.5, 0.6), (0.8, 0.9, 1.0))
    return House(tuple(rooms), openings, (), _triple(sky), lamp, _triple(light), _triple(ambient))


class MiniworldRenderer:
    """Renders scenes by seed, as `scenes.SceneRenderer` does. One renderer belongs to one thread."""

    least_objects = MIN_OBJECTS
    """Number of clearly visible objects of a scene, at least."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        self.width, self.height = width, height
        self._rooms = Rooms(width, height)

    def render(self, seed: int) -> WorldSample:
        """Render the scene of `seed`; attempts with too few clearly visible objects are drawn again within
        the seed."""
        attempt = 0
        while True:
            attempt += 1
            sample = self._try(seed, np.random.default_rng([seed, attempt, 13]))
            if sample is not None:
                return sample

    def _try(self, seed: int, rng: np.random.Generator) -> WorldSample | None:
        held_out = held_out_seed(seed)
        layout = (
            HELD_OUT_LAYOUT if held_out and rng.random() < 0.4 else LAYOUTS[int(rng.integers(len(LAYOUTS)))]
        )
        house = draw_house(rng, layout, held_out)
        kinds = [kind for kind in MINIWORLD_KINDS if kind.name != "building" or layout == "yard"]
        things = draw_things(
            rng, kinds, int(rng.integers(MIN_OBJECTS + 1, MAX_OBJECTS + 2)), held_out, FINISHES
        )
        eye, turn = self._stand(rng, house)
        pitch, field, height = self._lens(rng)
        camera = self._rooms.camera(eye, turn, height, pitch, field)
        placed = self._place(rng, house, things, eye, turn, field)
        if len(placed) < self.least_objects:
            return None
        return self._observe(seed, house, placed, camera)

    def _lens(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw pitch and vertical field of view in radians, and the camera's height in metres."""
        pitch, field = np.deg2rad(rng.uniform(-28, 2)), np.deg2rad(rng.uniform(42, 68))
        return float(pitch), float(field), float(rng.uniform(0.5, 1.7))

    def _ahead(self, rng: np.random.Generator, half_field: float) -> tuple[float, float]:
        """Draw the distance of an object's middle from the camera in metres and its direction in radians to
        the left. half_field: half of the horizontal field of view, radians."""
        return float(rng.uniform(1.0, 9.0)), float(rng.uniform(-1, 1) * half_field * 0.95)

    def _describe(
        self, thing: Thing, mask: NDArray[np.bool_], whole: int, points: Array, camera: Camera
    ) -> SceneObject | None:
        """Describe an object that is clearly visible, see `scene_object`; None for others."""
        return scene_object(thing, mask, whole, points, camera.rotation, camera.position)

    def _stand(self, rng: np.random.Generator, house: House) -> tuple[tuple[float, float], float]:
        """Draw a position near a side of the first room, looking across it."""
        low, high = np.array(house.rooms[0].low), np.array(house.rooms[0].high)
        middle, half = (low + high) / 2, (high - low) / 2 - _EYE_ROOM
        axis, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
        place = middle + rng.uniform(-0.7, 0.7, 2) * half
        place[axis] = middle[axis] + side * half[axis] * rng.uniform(0.6, 1.0)
        aim = middle + rng.uniform(-0.4, 0.4, 2) * half
        if len(house.rooms) > 1 and rng.random() < 0.5:
            opening = house.openings[int(rng.integers(len(house.openings)))]
            aim[1 - opening.axis] = high[1 - opening.axis]
            aim[opening.axis] = (opening.low + opening.high) / 2
        turn = float(np.arctan2(*(aim - place)[::-1])) + float(rng.normal(0, 0.12))
        return (float(place[0]), float(place[1])), turn

    def _place(
        self,
        rng: np.random.Generator,
        house: House,
        things: Sequence[Thing],
        eye: tuple[float, float],
        turn: float,
        field: float,
    ) -> list[tuple[Thing, Furnishing]]:
        """Draw objects in front of the camera, clear of each other and of walls."""
        placed: list[tuple[Thing, Furnishing]] = []
        reaches: list[float] = []
        half_field = np.arctan(np.tan(field / 2) * self.width / self.height)
        for thing in things:
            for _ in range(40):
                far, angle = self._ahead(rng, half_field)
                x, y = eye[0] + far * np.cos(turn + angle), eye[1] + far * np.sin(turn + angle)
                item = furnish(rng, thing, (float(x), float(y)), float(rng.uniform(-np.pi, np.pi)))
                reach = reach_of(item)
                if thing.kind.name == "door":
                    item = against_wall(item, house.rooms[0])
                if not inside(house, item.place, 0.05 if thing.kind.name == "door" else reach):
                    continue
                if np.hypot(*(np.array(item.place) - eye)) < reach + 0.5:
                    continue
                apart = [
                    np.hypot(*(np.array(item.place) - other.place)) - reach - r
                    for (_, other), r in zip(placed, reaches)
                ]
                if any(gap < _GAP for gap in apart):
                    continue
                placed.append((thing, item))
                reaches.append(reach)
                break
        return placed

    def _observe(
        self, seed: int, house: House, placed: list[tuple[Thing, Furnishing]], camera: Camera
    ) -> WorldSample | None:
        """Observe the scene; objects that are not clearly visible are removed until all others are."""
        whole: dict[int, tuple[FloatArray, int]] = {}
        left = list(placed)
        for _ in range(4):
            if len(left) < self.least_objects:
                return None
            self._rooms.enter(replace(house, furniture=tuple(item for _, item in left)))
            depth = self._rooms.frame(camera)[1]
            objects: list[SceneObject | None] = []
            for index, (thing, item) in enumerate(left):
                if id(item) not in whole:
                    alone = self._rooms.alone(camera, index)
                    whole[id(item)] = alone, int((alone < FAR * 0.9).sum())
                alone, count = whole[id(item)]
                mask: NDArray[np.bool_] = (alone < FAR * 0.9) & (alone <= depth)
                points = self._rooms.points(index)
                objects.append(self._describe(thing, mask, count, points, camera))
            if all(item is not None for item in objects):
                rgb, depth = self._rooms.picture(camera)
                words = avoided_words([thing for thing, _ in left])
                found = tuple(item for item in objects if item is not None)
                return WorldSample(rgb, depth, camera.intrinsics, found, seed, words)
            left = [pair for pair, item in zip(left, objects) if item is not None]
        return None

    def close(self) -> None:
        """Does nothing: pyglet's context lives as long as the process."""

    def __enter__(self) -> MiniworldRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_REACH = {
    "chair": 0.43,
    "desk": 0.6,
    "barrel": 0.5,
    "barrier": 1.82,
    "cone": 0.45,
    "door": 0.52,
    "duck": 0.67,
    "keycard": 0.4,
    "medkit": 0.64,
    "potion": 0.37,
    "tree": 0.66,
    "pine tree": 0.41,
    "building": 0.65,
    "key": 1.25,
    "ball": 0.72,
}
"""Radius of the circle around a mesh, for a height of one metre."""


def reach_of(item: Furnishing) -> float:
    if item.kind == "box":
        return float(np.hypot(item.size[0], item.size[1]) / 2)
    return _REACH[item.kind] * item.height


def inside(house: House, place: tuple[float, float], reach: float) -> bool:
    """Whether a circle lies within one room."""
    x, y = place
    return any(
        room.low[0] + reach < x < room.high[0] - reach and room.low[1] + reach < y < room.high[1] - reach
        for room in house.rooms
    )


def against_wall(item: Furnishing, room: Room) -> Furnishing:
    """Move a piece of furniture to the nearest wall of a room, with its back to it."""
    x, y = item.place
    gaps = [x - room.low[0], room.high[0] - x, y - room.low[1], room.high[1] - y]
    wall = int(np.argmin(gaps))
    thick = 0.06 * item.height
    x = (room.low[0] + thick, room.high[0] - thick, x, x)[wall]
    y = (y, y, room.low[1] + thick, room.high[1] - thick)[wall]
    return replace(item, place=(x, y), turn=(0.0, np.pi, np.pi / 2, -np.pi / 2)[wall])


def _triple(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
