"""The world `robosuite`: groceries, tools and plain shapes on tables, in bins and on the floor, with a Panda.

Objects, textures, tables, bins and the robot are robosuite's own (robosuite.ai, MIT licence). Objects are put where they
stand; nothing is simulated. Needs the environment of `make setup-sim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.colours import COLOURS, muted, paint
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.layout import camera_at, on_plane, outline_bounds
from groma_ros.simulation.robosuite_table import (
    BIN_HALF,
    BIN_HEIGHT,
    BINS,
    BURIED,
    PRIMITIVES,
    TABLE_HEIGHT,
    Item,
    geom_points,
    make_environment,
    texture_files,
)
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
    held_out_name,
    held_out_seed,
    scene_object,
    split,
)
from groma_ros.types import FloatArray

LAYOUTS = ("table", "large table", "bin", "floor")
HELD_OUT_LAYOUT = "divided bin"
MIN_OBJECTS, MAX_OBJECTS = 3, 10
_SIZES = {"mesh": (0.85, 1.0, 1.15, 1.07), "pot": (0.5,), "hammer": (0.55,)}
_HELD_OUT_SIZE = 1.07
_PAINTED = ("can", "carton", "bottle", "pot", "hammer", *PRIMITIVES)
_UNPAINTED = ("can", "carton", "cereal box", "loaf", "lemon", "bottle")  # what comes as its makers made it
_COPIES = {"box": 5, "ball": 4, "cylinder": 4, "pot": 2, "hammer": 2}
_PALE = ("ceramic", "white-plaster", "white-bricks", "gray-woodgrain", "light-gray-plaster", "cream-plaster")
_LIES = ("can", "carton", "cereal box", "bottle", "box", "cylinder")
_FINISHES = {
    kind.name: (*((OWN,) if kind.name in _UNPAINTED else ()), *(COLOURS if kind.name in _PAINTED else ()))
    for kind in ROBOSUITE_KINDS
}
_GAP = 0.008
_EDGE = 3.0


@dataclass(frozen=True, eq=False)
class _Slot:
    """An object of the model that a scene may use. geoms: its visible ones; looks: their materials as they were made."""

    item: Item
    joint: int
    geoms: list[int]
    looks: list[int]


@dataclass(frozen=True, eq=False)
class _Placed:
    """A slot in a scene: as what, where, and points Px3 of its surface in the world."""

    slot: _Slot
    thing: Thing
    position: Array
    rotation: Array
    points: Array


def pool() -> list[Item]:
    """Every object that a scene may draw from."""
    items = []
    for kind in ROBOSUITE_KINDS:
        name = kind.name.replace(" ", "_")
        sizes = _SIZES.get(kind.name, _SIZES["mesh"])
        if kind.name in PRIMITIVES:
            start: dict[str, tuple[float, ...]] = {"box": (0.03,) * 3, "ball": (0.03,), "cylinder": (0.03, 0.04)}
            items += [Item(f"{name}_{i}", kind.name, start[kind.name]) for i in range(_COPIES[kind.name])]
        else:
            copies = [size for size in sizes for _ in range(_COPIES.get(kind.name, 1))]
            items += [Item(f"{name}_{i}", kind.name, (size,) * 3) for i, size in enumerate(copies)]
    return items


class RobosuiteRenderer:
    """Renders scenes by seed, as `scenes.SceneRenderer` does. One renderer belongs to one thread; close it."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        self.width, self.height = width, height
        self._environment = make_environment(pool())
        self._environment.reset()
        import mujoco

        self._mj: Any = mujoco
        self._model: Any = self._environment.sim.model._model
        self._data: Any = self._environment.sim.data._data
        model = self._model
        model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 2048
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.map.znear, model.vis.map.zfar = 0.02 / model.stat.extent, 20 / model.stat.extent
        self._slots = [self._slot(item, thing) for item, thing in zip(pool(), self._environment.things)]
        self._owner = np.full(model.ngeom, -1)
        for index, slot in enumerate(self._slots):
            self._owner[slot.geoms] = index
        self._camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "frontview")
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # the shapes that collide
        self._options.sitegroup[:] = 0
        self._materials = {
            path.stem: mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_MATERIAL, f"look_{path.stem}")
            for path in texture_files()
        }
        robot = self._environment.robots[0]
        self._joints = [model.jnt_qposadr[model.joint(name).id] for name in robot.robot_joints]
        self._home = np.array(robot.robot_model.init_qpos, np.float64)
        self._base = {name: model.body_pos[model.body(name).id].copy() for name in ("table", *BINS)}
        self._renderer = mujoco.Renderer(model, height, width)

    def _slot(self, item: Item, thing: Any) -> _Slot:
        geoms = [self._model.geom(name).id for name in thing.visual_geoms]
        joint = int(self._model.jnt_qposadr[self._model.joint(thing.joints[0]).id])
        return _Slot(item, joint, geoms, [int(self._model.geom_matid[g]) for g in geoms])

    def render(self, seed: int) -> WorldSample:
        """The scene of `seed`; tries that leave too few objects in clear view are drawn anew within the seed."""
        attempt = 0
        while True:
            attempt += 1
            sample = self._try(seed, np.random.default_rng([seed, attempt, 11]))
            if sample is not None:
                return sample

    def _try(self, seed: int, rng: np.random.Generator) -> WorldSample | None:
        held_out = held_out_seed(seed)
        layout = HELD_OUT_LAYOUT if held_out and rng.random() < 0.4 else LAYOUTS[int(rng.integers(len(LAYOUTS)))]
        centre, half, height = self._surroundings(rng, layout, held_out)
        camera = self._draw_camera(rng, layout, centre, half, height)
        count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
        things = draw_things(rng, ROBOSUITE_KINDS, count, held_out, _FINISHES)
        self._bury_all()
        self._pose_robot(rng, height)
        divided = layout == HELD_OUT_LAYOUT
        placed = self._place(rng, things, camera, centre, half, height, held_out, divided)
        if len(placed) < MIN_OBJECTS:
            return None
        self._light(rng)
        for item in placed:
            self._dress(rng, item, held_out)
        self._point(camera)
        seen = self._observe(placed, camera)
        if seen is None:
            return None
        left, objects = seen
        rgb, depth = self._picture()
        words = avoided_words([item.thing for item in left])
        return WorldSample(rgb, depth, camera.intrinsics, objects, seed, words)

    def _surroundings(self, rng: np.random.Generator, layout: str, held_out: bool) -> tuple[Array, Array, float]:
        """Set up table, bins and surfaces; the middle and half sizes of where objects stand, and its height."""
        model = self._model
        for name, place in self._base.items():
            model.body_pos[model.body(name).id] = place - [0, 0, 40]
        centre, half, height = np.zeros(2), np.array([0.36, 0.36]), TABLE_HEIGHT
        if layout == "table" or layout == "large table":
            model.body_pos[model.body("table").id] = self._base["table"]
            wide = (0.4, 0.4) if layout == "table" else tuple(rng.uniform(0.42, 0.7, 2))
            model.geom_size[model.geom("table_visual").id][:2] = wide
        elif layout == "floor":
            centre, half, height = rng.uniform(-0.2, 0.5, 2), np.array([0.6, 0.6]), 0.0
        else:
            name = "bin1" if layout == "bin" else "bin2"
            model.body_pos[model.body(name).id] = self._base[name]
            centre, half, height = np.array(BINS[name]), np.array(BIN_HALF), BIN_HEIGHT
        names = split(list(self._materials), held_out)
        bins = [g for g in range(model.ngeom) if model.body(int(model.geom_bodyid[g])).name in BINS]
        walls = [g for g in range(model.ngeom) if model.geom(g).name.startswith("wall_")]
        groups = [[model.geom("table_visual").id], [model.geom("floor").id], walls, [g for g in bins if model.geom_group[g]]]
        for group in groups:
            material = self._materials[names[int(rng.integers(len(names)))]]
            shade = np.ones(3) if rng.random() < 0.6 else 0.4 + 0.6 * muted(rng)
            model.mat_texrepeat[material] = float(rng.uniform(0.8, 5))
            for geom in group:
                model.geom_matid[geom] = material
                model.geom_rgba[geom] = [*np.where(shade == 0.5, 0.51, shade), 1]
        return centre, half, height

    def _draw_camera(self, rng: np.random.Generator, layout: str, centre: Array, half: Array, height: float) -> Camera:
        steep = layout in ("bin", HELD_OUT_LAYOUT)
        elevation = np.deg2rad(rng.uniform(38 if steep else 12, 84))
        azimuth = rng.uniform(-0.75, 0.75) * np.pi  # the robot stands behind the table
        view = np.tan(np.deg2rad(rng.uniform(34, 72)) / 2)
        span = 2 * float(half.max()) * rng.uniform(0.55, 1.7)
        target = np.array([*(centre + rng.uniform(-0.15, 0.15, 2) * half), height + rng.uniform(0, 0.08)])
        size = (self.width, self.height)
        return camera_at(rng, target, azimuth, elevation, view, span, size, self.width / self.height)

    def _bury_all(self) -> None:
        for index, slot in enumerate(self._slots):
            self._data.qpos[slot.joint : slot.joint + 7] = [0.5 * index, 0, BURIED, 1, 0, 0, 0]

    def _pose_robot(self, rng: np.random.Generator, height: float) -> None:
        """Any pose of the arm that keeps clear of the surface; where none is found, the one it starts in."""
        hand = self._model.body("gripper0_right_eef").id
        for spread in (0.5, 0.35, 0.2, 0.0):
            self._data.qpos[self._joints] = self._home + rng.normal(0, 1, len(self._joints)) * spread
            self._mj.mj_kinematics(self._model, self._data)
            if self._data.xpos[hand][2] > height + 0.16:
                return

    def _place(
        self, rng: np.random.Generator, things: Sequence[Thing], camera: Camera, centre: Array, half: Array,
        height: float, held_out: bool, divided: bool,
    ) -> list[_Placed]:  # fmt: skip
        """Objects that stand or lie free, wholly in the picture; those that find no place are left out."""
        free = {kind.name: [s for s in self._slots if s.item.kind == kind.name] for kind in ROBOSUITE_KINDS}
        placed: list[_Placed] = []
        grown = float(rng.uniform(0.9, 1.35)) if height == 0 else 1.0
        for thing in things:
            slots = [slot for slot in free[thing.kind.name] if held_out or slot.item.size[0] != _HELD_OUT_SIZE]
            if not slots:
                continue
            slot = slots[int(rng.integers(len(slots)))]
            free[thing.kind.name].remove(slot)
            self._resize(rng, slot, grown)
            points = self._own_points(slot)
            found = self._spot(rng, thing, points, placed, camera, centre, half, height, divided)
            if found is None:
                continue
            position, rotation = found
            item = _Placed(slot, thing, position, rotation, points @ rotation.T + position)
            quaternion = np.zeros(4)
            self._mj.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
            self._data.qpos[slot.joint : slot.joint + 7] = [*position, *quaternion]
            placed.append(item)
        return placed

    def _resize(self, rng: np.random.Generator, slot: _Slot, grown: float) -> None:
        if slot.item.kind == "box":
            size = np.array([*rng.uniform(0.02, 0.055, 2), rng.uniform(0.015, 0.06)])
        elif slot.item.kind == "ball":
            size = np.array([rng.uniform(0.02, 0.045), 0, 0])
        elif slot.item.kind == "cylinder":
            size = np.array([rng.uniform(0.018, 0.04), rng.uniform(0.025, 0.06), 0])
        else:
            return
        for geom in slot.geoms:
            self._model.geom_size[geom] = size * grown

    def _own_points(self, slot: _Slot) -> Array:
        """Points of its surface in the frame of its body."""
        body = self._model.geom_bodyid[slot.geoms[0]]
        found = []
        for geom in slot.geoms:
            matrix = np.zeros(9)
            self._mj.mju_quat2Mat(matrix, self._model.geom_quat[geom])
            local = geom_points(self._model, geom) @ matrix.reshape(3, 3).T + self._model.geom_pos[geom]
            if self._model.geom_bodyid[geom] != body:
                raise ValueError(f"{slot.item.name} has more than one body.")
            found.append(local)
        return np.concatenate(found)

    def _spot(
        self, rng: np.random.Generator, thing: Thing, points: Array, placed: Sequence[_Placed], camera: Camera,
        centre: Array, half: Array, height: float, divided: bool,
    ) -> tuple[Array, Array] | None:  # fmt: skip
        lies = thing.kind.name == "hammer" or (thing.kind.name in _LIES and rng.random() < 0.25)
        tilt = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) if lies else np.eye(3)
        others = [outline_bounds(camera, item.points) for item in placed]
        for _ in range(30):
            rotation = rotation_z(rng.uniform(0, 2 * np.pi)) @ tilt
            turned = points @ rotation.T
            middle = (turned[:, :2].min(0) + turned[:, :2].max(0)) / 2
            reach = float(np.hypot(*(turned[:, :2] - middle).T).max())
            spot = on_plane(rng, camera, height)
            if spot is None or (np.abs(spot[:2] - centre) > half - reach).any():
                continue
            if divided and (np.abs(spot[:2] - centre) < reach).any():
                continue
            gaps = [_gap(spot[:2], reach, item.points) for item in placed]
            if any(gap < _GAP for gap in gaps):
                continue
            position = np.array([*(spot[:2] - middle), height - turned[:, 2].min()])
            box = outline_bounds(camera, turned + position)
            if (box[:2] < _EDGE).any() or (box[2:] > np.array([self.width, self.height]) - _EDGE).any():
                continue
            if any(_covered(box, other) > 0.4 for other in others):
                continue
            return position, rotation
        return None

    def _dress(self, rng: np.random.Generator, item: _Placed, held_out: bool) -> None:
        """Its makers' look, or paint, plain or over a pale texture."""
        model = self._model
        pale = [name for name in _PALE if held_out_name(name) == held_out]
        textured = pale and rng.random() < 0.3
        rgb = paint(rng, item.thing.finish) if item.thing.finish != OWN else (0.5, 0.5, 0.5)
        material = self._materials[pale[int(rng.integers(len(pale)))]] if textured else -1
        for geom, look in zip(item.slot.geoms, item.slot.looks):
            own = item.thing.finish == OWN
            model.geom_matid[geom] = look if own else material
            model.geom_rgba[geom] = [*rgb, 1]

    def _light(self, rng: np.random.Generator) -> None:
        model = self._model
        tint = 1 + rng.uniform(-0.08, 0.08) * np.array([1, 0, -1])
        model.vis.headlight.ambient[:] = rng.uniform(0.24, 0.45) * tint
        model.vis.headlight.diffuse[:] = rng.uniform(0.1, 0.4)
        model.vis.headlight.specular[:] = rng.uniform(0, 0.2)
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(30, 85))
        ray = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        model.light_pos[0], model.light_dir[0] = 3 * ray + [0, 0, 0.8], -ray
        model.light_diffuse[0] = rng.uniform(0.25, 0.8) * tint
        model.light_specular[0] = rng.uniform(0, 0.4)
        model.light_castshadow[0] = rng.random() < 0.7

    def _point(self, camera: Camera) -> None:
        """Move the model's camera to where ours is."""
        quaternion = np.zeros(4)
        turn = camera.rotation * [1, -1, -1]  # MuJoCo's cameras look along -z with y up
        self._mj.mju_mat2Quat(quaternion, np.ascontiguousarray(turn).ravel())
        index, k = self._camera, camera.intrinsics
        self._model.cam_pos[index], self._model.cam_quat[index] = camera.position, quaternion
        self._model.cam_fovy[index] = np.rad2deg(2 * np.arctan(k.height / 2 / k.fy))
        self._update()

    def _update(self) -> None:
        self._mj.mj_kinematics(self._model, self._data)
        self._mj.mj_camlight(self._model, self._data)

    def _labels(self, only: Sequence[_Placed] | None = None) -> NDArray[np.int64]:
        """Index of the slot at each pixel, -1 where there is none, HxW. only: as if nothing else were there."""
        renderer = self._renderer
        renderer.enable_segmentation_rendering()
        renderer.update_scene(self._data, self._camera, self._options)
        if only is not None:
            kept = {geom for item in only for geom in item.slot.geoms}
            scene = renderer.scene
            for index in range(scene.ngeom):
                if scene.geoms[index].objid not in kept:
                    scene.geoms[index].pos[:] = (0, 0, -500)
        pair = renderer.render()
        renderer.disable_segmentation_rendering()
        geoms = np.where(pair[..., 1] == int(self._mj.mjtObj.mjOBJ_GEOM), pair[..., 0], -1)
        return np.where(geoms >= 0, self._owner[geoms], -1)

    def _observe(self, placed: list[_Placed], camera: Camera) -> tuple[list[_Placed], tuple[SceneObject, ...]] | None:
        """The objects in clear view; others are taken away until all that are left are. None where too few are left."""
        left = list(placed)
        order = {id(slot): index for index, slot in enumerate(self._slots)}
        whole = self._whole_areas(left, camera, order)
        for _ in range(4):
            if len(left) < MIN_OBJECTS:
                return None
            labels = self._labels()
            objects = []
            for item in left:
                index = order[id(item.slot)]
                mask = labels == index
                args = (item.points, camera.rotation, camera.position)
                objects.append(scene_object(item.thing, mask, whole[index], *args))
            if all(item is not None for item in objects):
                return left, tuple(item for item in objects if item is not None)
            for item, found in zip(left, objects):
                if found is None:
                    self._data.qpos[item.slot.joint + 2] = BURIED
            left = [item for item, found in zip(left, objects) if found is not None]
            self._update()
        return None

    def _whole_areas(self, placed: list[_Placed], camera: Camera, order: dict[int, int]) -> dict[int, int]:
        """Pixels of each object if nothing hid it; objects whose outlines do not meet are drawn together."""
        waiting = [(item, outline_bounds(camera, item.points) + [-2, -2, 2, 2]) for item in placed]
        whole: dict[int, int] = {}
        while waiting:
            group: list[tuple[_Placed, Array]] = []
            for item, box in waiting:
                if all(_covered(box, other) == 0 for _, other in group):
                    group.append((item, box))
            labels = self._labels([item for item, _ in group])
            for item, _ in group:
                index = order[id(item.slot)]
                whole[index] = int((labels == index).sum())
            taken = {id(item) for item, _ in group}
            waiting = [pair for pair in waiting if id(pair[0]) not in taken]
        return whole

    def _picture(self) -> tuple[NDArray[np.uint8], FloatArray]:
        renderer = self._renderer
        renderer.update_scene(self._data, self._camera, self._options)
        rgb = renderer.render().copy()
        renderer.enable_depth_rendering()
        renderer.update_scene(self._data, self._camera, self._options)
        depth = renderer.render().astype(np.float32)
        renderer.disable_depth_rendering()
        return rgb, depth

    def close(self) -> None:
        """Free the OpenGL resources."""
        self._renderer.close()
        self._environment.close()

    def __enter__(self) -> RobosuiteRenderer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _gap(spot: Array, reach: float, points: Array) -> float:
    """Distance on the surface between a circle and the circle around an object's points."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    middle = (low + high) / 2
    other = float(np.hypot(*(points[:, :2] - middle).T).max())
    return float(np.hypot(*(spot - middle))) - reach - other


def _covered(box: Array, other: Array) -> float:
    """Share of the smaller of two xyxy boxes that both cover."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    return shared / float(min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod()))
