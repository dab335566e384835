"""The world `robosuite`: groceries, tools and plain shapes on tables, in bins and on the floor, with a Panda.

Objects, textures, tables, bins and the robot are robosuite's (robosuite.ai, MIT licence). Objects are placed
without simulation. Requires the environment of `make setup-sim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np

from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.layout import camera_at, on_plane, outline_bounds
from groma_ros.simulation.robosuite_stage import Placed, Slot, Stage, covered
from groma_ros.simulation.robosuite_table import PRIMITIVES, Item
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.shapes import rotation_z
from groma_ros.simulation.world_objects import (
    OWN,
    ROBOSUITE_KINDS,
    Array,
    Thing,
    WorldSample,
    avoided_words,
    draw_things,
    held_out_seed,
)

LAYOUTS = ("table", "large table", "bin", "floor")
HELD_OUT_LAYOUT = "divided bin"
MIN_OBJECTS, MAX_OBJECTS = 3, 10
HELD_OUT_SIZE = 1.07
# kinds that may keep their original look
_UNPAINTED = ("can", "carton", "cereal box", "loaf", "lemon", "bottle")
_PAINTED = ("can", "carton", "bottle", "pot", "hammer", *PRIMITIVES)
FINISHES = {
    kind.name: (*((OWN,) if kind.name in _UNPAINTED else ()), *(COLOURS if kind.name in _PAINTED else ()))
    for kind in ROBOSUITE_KINDS
}
_SIZES = {"pot": (0.5,), "hammer": (0.55,)}
_GROCERY_SIZES = (0.85, 1.0, 1.15, HELD_OUT_SIZE)
_PRIMITIVE_SIZES = {"box": (0.03,) * 3, "ball": (0.03,), "cylinder": (0.03, 0.04)}  # sizes before resizing
_COPIES = {"box": 5, "ball": 4, "cylinder": 4, "pot": 2, "hammer": 2}
LIES = ("can", "carton", "cereal box", "bottle", "box", "cylinder")
LYING = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
_GAP = 0.008
_EDGE = 3.0


def pool() -> list[Item]:
    """Every object that a scene may draw from."""
    items = []
    for kind in ROBOSUITE_KINDS:
        name, copies = kind.name.replace(" ", "_"), range(_COPIES.get(kind.name, 1))
        if kind.name in PRIMITIVES:
            sizes = [_PRIMITIVE_SIZES[kind.name] for _ in copies]
        else:
            sizes = [(size,) * 3 for size in _SIZES.get(kind.name, _GROCERY_SIZES) for _ in copies]
        items += [Item(f"{name}_{index}", kind.name, size) for index, size in enumerate(sizes)]
    return items


class RobosuiteRenderer:
    """Renders scenes by seed, as `scenes.SceneRenderer` does. One renderer belongs to one thread; close
    it."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        self.width, self.height = width, height
        self._stage = Stage(pool(), width, height)
        robot = self._stage.environment.robots[0]
        model = self._stage.model
        self._joints = [model.jnt_qposadr[model.joint(name).id] for name in robot.robot_joints]
        self._home = np.array(robot.robot_model.init_qpos, np.float64)

    def render(self, seed: int) -> WorldSample:
        """Render the scene of `seed`; attempts with too few clearly visible objects are drawn again within
        the seed."""
        attempt = 0
        while True:
            attempt += 1
            sample = self._try(seed, np.random.default_rng([seed, attempt, 11]))
            if sample is not None:
                return sample

    def _try(self, seed: int, rng: np.random.Generator) -> WorldSample | None:
        stage, held_out = self._stage, held_out_seed(seed)
        layout = (
            HELD_OUT_LAYOUT if held_out and rng.random() < 0.4 else LAYOUTS[int(rng.integers(len(LAYOUTS)))]
        )
        centre, half, height = stage.surroundings(rng, layout, held_out)
        camera = self._draw_camera(rng, layout, centre, half, height)
        count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
        things = draw_things(rng, ROBOSUITE_KINDS, count, held_out, FINISHES)
        for slot in stage.slots:
            stage.bury(slot)
        self._pose_robot(rng, height)
        spots = _Spots(camera, centre, half, height, layout == HELD_OUT_LAYOUT)
        placed = self._place(rng, things, spots, held_out)
        if len(placed) < MIN_OBJECTS:
            return None
        stage.light(rng)
        for item in placed:
            stage.dress(rng, item.slot, item.thing, held_out)
        stage.point(camera)
        stage.update()
        seen = self._observe(placed, camera)
        if seen is None:
            return None
        left, objects = seen
        rgb, depth = stage.picture()
        return WorldSample(
            rgb, depth, camera.intrinsics, objects, seed, avoided_words([item.thing for item in left])
        )

    def _draw_camera(
        self, rng: np.random.Generator, layout: str, centre: Array, half: Array, height: float
    ) -> Camera:
        steep = layout in ("bin", HELD_OUT_LAYOUT)
        elevation = np.deg2rad(rng.uniform(38 if steep else 12, 84))
        azimuth = rng.uniform(-0.75, 0.75) * np.pi  # the robot is behind the table
        view = np.tan(np.deg2rad(rng.uniform(34, 72)) / 2)
        span = 2 * float(half.max()) * rng.uniform(0.55, 1.7)
        target = np.array([*(centre + rng.uniform(-0.15, 0.15, 2) * half), height + rng.uniform(0, 0.08)])
        size = (self.width, self.height)
        return camera_at(rng, target, azimuth, elevation, view, span, size, self.width / self.height)

    def _pose_robot(self, rng: np.random.Generator, height: float) -> None:
        """Draw a pose of the arm clear of the surface; use its initial pose if none is found."""
        stage = self._stage
        hand = stage.model.body("gripper0_right_eef").id
        for spread in (0.5, 0.35, 0.2, 0.0):
            stage.data.qpos[self._joints] = self._home + rng.normal(0, 1, len(self._joints)) * spread
            stage.update()
            if stage.data.xpos[hand][2] > height + 0.16:
                return

    def _place(
        self, rng: np.random.Generator, things: Sequence[Thing], spots: _Spots, held_out: bool
    ) -> list[Placed]:
        """Place objects free of each other and completely in the picture; those without a place are left
        out."""
        free = {
            kind.name: [s for s in self._stage.slots if s.item.kind == kind.name] for kind in ROBOSUITE_KINDS
        }
        placed: list[Placed] = []
        grown = float(rng.uniform(0.9, 1.35)) if spots.height == 0 else 1.0
        for thing in things:
            slots = [slot for slot in free[thing.kind.name] if held_out or slot.item.size[0] != HELD_OUT_SIZE]
            if not slots:
                continue
            slot = slots[int(rng.integers(len(slots)))]
            free[thing.kind.name].remove(slot)
            self._resize(rng, slot, grown)
            points = self._stage.own_points(slot)
            lies = thing.kind.name == "hammer" or (thing.kind.name in LIES and rng.random() < 0.25)
            found = spots.find(rng, points @ (LYING if lies else np.eye(3)).T, placed)
            if found is None:
                continue
            position, turn = found
            rotation = turn @ LYING if lies else turn
            placed.append(Placed(slot, thing, points @ rotation.T + position))
            self._stage.put(slot, position, rotation)
        return placed

    def _resize(self, rng: np.random.Generator, slot: Slot, grown: float) -> None:
        """Draw the size of a plain shape."""
        if slot.item.kind == "box":
            size = np.array([*rng.uniform(0.02, 0.055, 2), rng.uniform(0.015, 0.06)])
        elif slot.item.kind == "ball":
            size = np.array([rng.uniform(0.02, 0.045), 0, 0])
        elif slot.item.kind == "cylinder":
            size = np.array([rng.uniform(0.018, 0.04), rng.uniform(0.025, 0.06), 0])
        else:
            return
        for geom in slot.geoms:
            self._stage.model.geom_size[geom] = size * grown

    def _observe(
        self, placed: list[Placed], camera: Camera
    ) -> tuple[list[Placed], tuple[SceneObject, ...]] | None:
        """Observe the scene; objects that are not clearly visible are removed until all others are. None if
        too few are left."""
        left = list(placed)
        whole = self._stage.whole_areas(left, camera)
        for _ in range(4):
            if len(left) < MIN_OBJECTS:
                return None
            objects = self._stage.see(left, camera, whole)
            if all(item is not None for item in objects):
                return left, tuple(item for item in objects if item is not None)
            for item, found in zip(left, objects):
                if found is None:
                    self._stage.bury(item.slot)
            left = [item for item, found in zip(left, objects) if found is not None]
            self._stage.update()
        return None

    def close(self) -> None:
        """Free the OpenGL resources."""
        self._stage.close()

    def __enter__(self) -> RobosuiteRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Spots:
    """Free positions in a camera's view. divided: the surface is divided into four, and nothing may be placed
    across."""

    def __init__(self, camera: Camera, centre: Array, half: Array, height: float, divided: bool) -> None:
        self.camera, self.centre, self.half, self.height, self.divided = camera, centre, half, height, divided

    def find(
        self, rng: np.random.Generator, points: Array, placed: Sequence[Placed]
    ) -> tuple[Array, Array] | None:
        """Position and 3x3 rotation about z for an object of these points; None if no free position was
        found."""
        others = [outline_bounds(self.camera, item.points) for item in placed]
        k = self.camera.intrinsics
        for _ in range(30):
            turn = rotation_z(rng.uniform(0, 2 * np.pi))
            turned = points @ turn.T
            middle, reach = footprint(turned)
            spot = on_plane(rng, self.camera, self.height)
            if spot is None or (np.abs(spot[:2] - self.centre) > self.half - reach).any():
                continue
            if self.divided and (np.abs(spot[:2] - self.centre) < reach).any():
                continue
            circles = [footprint(item.points) for item in placed]
            if any(np.hypot(*(spot[:2] - other)) - reach - radius < _GAP for other, radius in circles):
                continue
            position = np.array([*(spot[:2] - middle), self.height - turned[:, 2].min()])
            box = outline_bounds(self.camera, turned + position)
            if (box[:2] < _EDGE).any() or (box[2:] > np.array([k.width, k.height]) - _EDGE).any():
                continue
            if all(covered(box, other) <= 0.4 for other in others):
                return position, turn
        return None


def footprint(points: Array) -> tuple[Array, float]:
    """Centre (x, y) and radius of the circle around points, seen from above."""
    middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
    return middle, float(np.hypot(*(points[:, :2] - middle).T).max())
