"""Grasping episodes in robosuite: a Panda, objects on a table or in a bin, and a goal in words with its
ground truth.

An episode depends only on its seed. The arm and the controller of the hand's pose are robosuite's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.goal_generator import GOAL_TYPES, SceneGoal
from groma_ros.simulation.layout import look_at
from groma_ros.simulation.robosuite_stage import Placed, Stage
from groma_ros.simulation.robosuite_table import BIN_HALF, BINS, PRIMITIVES, Item, texture_files
from groma_ros.simulation.robosuite_world import FINISHES, LIES, LYING, footprint
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.shapes import rotation_z
from groma_ros.simulation.world_objects import (
    ROBOSUITE_KINDS,
    Array,
    Thing,
    WorldSample,
    avoided_words,
    draw_things,
    split,
    world_goals,
)
from groma_ros.types import FloatArray, Intrinsics

STEP = 0.05
"""Duration of one step of the controller, seconds."""
LIFTED = 0.1
LIFTED_SECONDS = 2.0
WIDTH, HEIGHT = 640, 480
ABSENT_ONE_IN = 4
"""One in this many goals names nothing that is present."""
GRASPABLE = ("can", "carton", "cereal box", "loaf", "lemon", "bottle", *PRIMITIVES)
_BASES = {"table": (-0.56, 0.0, 0.0), "bin": (-0.5, -0.1, 0.0)}
_REACH = {
    "table": ((0.02, 0.0), (0.17, 0.27)),
    "bin": (BINS["bin1"], (BIN_HALF[0] - 0.03, BIN_HALF[1] - 0.03)),
}
"""Centre and half sizes of the area where objects are placed, world frame, metres."""
_GAP = 0.055  # metres between objects: room for a finger
_TURN, _TRAVEL = 1.2 * STEP, 0.35 * STEP  # maximum step of the hand: radians, metres
_SETTLE_STEPS = 24
_MOVED = 0.03


@dataclass(frozen=True, eq=False)
class GraspEpisode:
    """A goal in a cell with its ground truth."""

    seed: int
    goal: SceneGoal
    """Its targets are indices into the objects."""
    objects: tuple[SceneObject, ...]
    camera: Camera
    """In the robot's base frame."""
    layout: str


def _draw_items(rng: np.random.Generator) -> list[tuple[Item, Thing]]:
    kinds = [kind for kind in ROBOSUITE_KINDS if kind.name in GRASPABLE]
    things = draw_things(rng, kinds, int(rng.integers(4, 8)), True, FINISHES)
    pairs = []
    for index, thing in enumerate(things):
        size: tuple[float, ...]
        if thing.kind.name == "box":
            size = (
                float(rng.uniform(0.02, 0.03)),
                float(rng.uniform(0.02, 0.045)),
                float(rng.uniform(0.02, 0.045)),
            )
        elif thing.kind.name == "ball":
            size = (float(rng.uniform(0.02, 0.032)),)
        elif thing.kind.name == "cylinder":
            size = (float(rng.uniform(0.018, 0.03)), float(rng.uniform(0.025, 0.05)))
        else:
            size = (float(rng.uniform(0.85, 1.1)),) * 3
        pairs.append((Item(f"thing_{index}", thing.kind.name, size), thing))
    return pairs


class GraspCell:
    """One episode, for use by one thread. Close it and open another for another seed."""

    def __init__(self, seed: int) -> None:
        attempt = 0
        while True:
            attempt += 1
            if self._open(seed, np.random.default_rng([seed, attempt, 17])):
                return
            self.close()

    def _open(self, seed: int, rng: np.random.Generator) -> bool:
        """Try to set up an episode; False if an object is not clearly visible or no goal is possible."""
        layout = "bin" if rng.random() < 0.3 else "table"
        pairs = _draw_items(rng)
        names = split([path.stem for path in texture_files()], True)
        chosen = [names[int(i)] for i in rng.choice(len(names), min(3, len(names)), replace=False)]
        self._stage = Stage([item for item, _ in pairs], WIDTH, HEIGHT, _BASES[layout], chosen)
        stage = self._stage
        _, _, height = stage.surroundings(rng, layout, True)
        (x, y), half = _REACH[layout]
        placed: list[Placed] = []
        for slot, (_, thing) in zip(stage.slots, pairs):
            points = stage.own_points(slot)
            lies = thing.kind.name in LIES and rng.random() < 0.2
            found = _free_spot(
                rng, points @ (LYING if lies else np.eye(3)).T, placed, np.array([x, y]), np.array(half)
            )
            if found is None:
                return False
            spot, turn = found
            rotation = turn @ LYING if lies else turn
            position = np.array([*spot, height + 0.002 - (points @ rotation.T)[:, 2].min()])
            stage.put(slot, position, rotation)
            stage.dress(rng, slot, thing, True)
            placed.append(Placed(slot, thing, points @ rotation.T + position))
        stage.light(rng)
        self._ready()
        for _ in range(_SETTLE_STEPS):
            self._act()
        self._placed = [Placed(p.slot, p.thing, self._points(p)) for p in placed]
        camera = self._draw_camera(rng, np.array([x, y, height]))
        stage.point(camera)
        stage.update()
        seen = stage.see(self._placed, camera, stage.whole_areas(self._placed, camera))
        objects = tuple(item for item in seen if item is not None)
        if len(objects) < len(placed):
            return False
        rgb, depth = stage.picture()
        words = avoided_words([item.thing for item in placed])
        sample = WorldSample(rgb, depth, camera.intrinsics, objects, seed, words)
        goal = _draw_goal(seed, rng, sample)
        if goal is None:
            return False
        base = Camera(camera.position - self._base, camera.rotation, camera.intrinsics)
        self.episode = GraspEpisode(seed, goal, objects, base, layout)
        self._start = [self._middle(item) for item in self._placed]
        return True

    def _ready(self) -> None:
        """Move the arm to its first pose with an open hand, and let everything come to rest."""
        environment, model = self._stage.environment, self._stage.model
        environment.sim.forward()
        self._site = int(environment.robots[0].eef_site_id["right"])
        self._base = np.array(self._stage.data.xpos[model.body("robot0_base").id])
        joints = [
            j for j in range(model.njnt) if model.joint(j).name.startswith("gripper0_right_finger_joint")
        ]
        self._fingers = [int(model.jnt_qposadr[j]) for j in joints]
        self._robot_joints = {
            name: int(model.jnt_qposadr[model.joint(name).id]) for name in environment.robots[0].robot_joints
        }
        self._wanted = self.hand()
        self._goal = self._wanted
        self._opening = 0.08
        self._grip = 0.0
        self.seconds = 0.0
        self._since_command = 0.0
        self._held: dict[int, float] = {}
        self._lifted: set[int] = set()
        self._travelled = 0.0

    def _draw_camera(self, rng: np.random.Generator, middle: Array) -> Camera:
        """Draw a camera in front of the table that looks back at the robot, with the arm out of its view."""
        azimuth = float(rng.uniform(-0.45, 0.45))
        elevation = float(np.deg2rad(rng.uniform(42, 60)))
        distance = float(rng.uniform(0.85, 1.05))
        position, rotation = look_at(middle + [0.0, 0, 0.03], azimuth, elevation, distance, 0.0)
        focal = HEIGHT / 2 / np.tan(np.deg2rad(38) / 2)
        return Camera(position, rotation, Intrinsics(focal, focal, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT))

    def hand(self) -> tuple[Array, Array]:
        """Position and 3x3 rotation of the point between the fingertips in the robot's base frame; z points
        out of the hand, x along the direction in which the fingers close."""
        data = self._stage.data
        return data.site_xpos[self._site] - self._base, np.array(data.site_xmat[self._site]).reshape(3, 3)

    def joints(self) -> dict[str, float]:
        """The arm's joints, radians."""
        return {name: float(self._stage.data.qpos[address]) for name, address in self._robot_joints.items()}

    def opening(self) -> float:
        """Distance between the fingers, metres."""
        return float(sum(abs(self._stage.data.qpos[address]) for address in self._fingers))

    def command(self, position: Array, quaternion: tuple[float, float, float, float]) -> None:
        """Set the target pose of the hand in the base frame; it moves there at its own speed."""
        self._goal = np.asarray(position, np.float64), matrix_from_quaternion(quaternion)
        self._since_command = 0.0

    def open_to(self, opening: float) -> None:
        """Set the distance between the fingers, metres; 0 closes them on anything between them."""
        self._opening = float(np.clip(opening, 0, 0.08))
        self._since_command = 0.0

    @property
    def is_still(self) -> bool:
        """Whether there has been no command for a while, so that nothing moves."""
        return self._since_command > 3.0

    def step(self) -> None:
        """Advance the simulation by `STEP` seconds."""
        self.seconds += STEP
        self._since_command += STEP
        if not self.is_still:
            before = self.hand()[0]
            self._act()
            self._travelled += float(np.linalg.norm(self.hand()[0] - before))
        self._count()

    def _act(self) -> None:
        """One step of robosuite, moving the hand a little towards its target pose."""
        position, rotation = self._wanted
        goal, turn = self._goal
        way = goal - position
        length = float(np.linalg.norm(way))
        position = goal if length <= _TRAVEL else position + way * (_TRAVEL / length)
        axis = _axis_angle(turn @ rotation.T)
        angle = float(np.linalg.norm(axis))
        rotation = turn if angle <= _TURN else _rotation(axis * (_TURN / angle)) @ rotation
        self._wanted = position, rotation
        gap = self._opening - self.opening()
        grip = 1.0 if self._opening == 0 else 0.0 if abs(gap) < 0.004 else -float(np.sign(gap))
        self._stage.environment.step(np.concatenate([position, _axis_angle(rotation), [grip]]))

    def _count(self) -> None:
        """Update how long each object has been lifted."""
        for index, item in enumerate(self._placed):
            up = self._middle(item)[2] - self._start[index][2] >= LIFTED
            self._held[index] = self._held.get(index, 0.0) + STEP if up else 0.0
            if self._held[index] >= LIFTED_SECONDS:
                self._lifted.add(index)

    def score(self) -> dict[str, Any]:
        """Result: indices of lifted objects, of moved objects, and the path length of the hand, metres."""
        moved = [
            index
            for index, item in enumerate(self._placed)
            if float(np.linalg.norm(self._middle(item) - self._start[index])) > _MOVED
        ]
        return {"lifted": sorted(self._lifted), "moved": moved, "hand_path": round(self._travelled, 3)}

    def nudge(self, index: int, shift: tuple[float, float]) -> None:
        """Shift an object on its surface."""
        self._stage.data.qpos[self._placed[index].slot.joint : self._placed[index].slot.joint + 2] += shift
        self._stage.environment.sim.forward()
        self._start[index] = self._middle(self._placed[index])

    def picture(self) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres, as currently seen by the camera."""
        return self._stage.picture()

    def _points(self, item: Placed) -> Array:
        data, body = self._stage.data, item.slot.body
        rotation = np.array(data.xmat[body]).reshape(3, 3)
        points: Array = self._stage.own_points(item.slot) @ rotation.T + data.xpos[body]
        return points

    def _middle(self, item: Placed) -> Array:
        return np.array(self._stage.data.xpos[item.slot.body])

    def close(self) -> None:
        """Free the simulation."""
        self._stage.close()


def _free_spot(
    rng: np.random.Generator, points: Array, placed: list[Placed], centre: Array, half: Array
) -> tuple[Array, Array] | None:
    for _ in range(60):
        turn = rotation_z(rng.uniform(0, 2 * np.pi))
        middle, reach = footprint(points @ turn.T)
        spot = centre + rng.uniform(-1, 1, 2) * np.maximum(half - reach, 0.01)
        circles = [footprint(item.points) for item in placed]
        if all(np.hypot(*(spot - other)) - reach - radius > _GAP for other, radius in circles):
            return spot - middle, turn
    return None


def _draw_goal(seed: int, rng: np.random.Generator, sample: WorldSample) -> SceneGoal | None:
    """Draw a goal of the kind determined by the seed; every fourth is absent."""
    goals = world_goals(sample, rng, 3)
    present = [kind for kind in GOAL_TYPES if kind != "absent"]
    if seed % ABSENT_ONE_IN == ABSENT_ONE_IN - 1:
        wanted = ["absent"]
    else:
        turn = seed % len(present)
        wanted = present[turn:] + present[:turn]
    for kind in wanted:
        fitting = [goal for goal in goals if goal.kind == kind]
        if fitting:
            return fitting[int(rng.integers(len(fitting)))]
    return None


def _axis_angle(rotation: Array) -> Array:
    """The rotation vector of a 3x3 matrix, radians."""
    import cv2

    vector: Array = np.asarray(cv2.Rodrigues(rotation)[0], np.float64)
    return vector.reshape(3)


def _rotation(vector: Array) -> Array:
    import cv2

    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)
