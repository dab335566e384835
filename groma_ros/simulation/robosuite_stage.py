"""Set up a robosuite environment (objects, surfaces, light, camera) and render it with ground truth.

Used for training scenes (`robosuite_world`) and grasping episodes (`robosuite_cell`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.colours import muted, paint
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.layout import outline_bounds
from groma_ros.simulation.robosuite_table import (
    BIN_HALF,
    BIN_HEIGHT,
    BINS,
    TABLE_HEIGHT,
    Item,
    geom_points,
    make_environment,
)
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.world_objects import OWN, Array, Thing, held_out_name, scene_object, split
from groma_ros.types import FloatArray

BURIED = -20.0
"""Height at which unused objects are kept, metres."""
_PALE = ("ceramic", "white-plaster", "white-bricks", "gray-woodgrain", "light-gray-plaster", "cream-plaster")


@dataclass(frozen=True, eq=False)
class Slot:
    """An object of the simulated model."""

    item: Item
    body: int
    joint: int
    """Index of its pose in qpos."""
    geoms: list[int]
    """Its visible geoms."""
    looks: list[int]
    """Their original materials."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A slot in use: the object, and points Px3 of its surface in the world."""

    slot: Slot
    thing: Thing
    points: Array


class Stage:
    """Objects on tables, in bins or on the floor beside a Panda, and one camera. For use by one thread; close
    it."""

    def __init__(
        self,
        items: Sequence[Item],
        width: int,
        height: int,
        base: tuple[float, float, float] = (-0.56, 0.0, 0.0),
        textures: Sequence[str] | None = None,
    ) -> None:
        self.width, self.height = width, height
        self.environment = make_environment(items, base, textures)
        self.environment.reset()
        import mujoco

        self.mj: Any = mujoco
        self.model: Any = self.environment.sim.model._model
        self.data: Any = self.environment.sim.data._data
        model = self.model
        model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 2048
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.map.znear, model.vis.map.zfar = 0.02 / model.stat.extent, 20 / model.stat.extent
        self.slots = [self._slot(item, thing) for item, thing in zip(items, self.environment.things)]
        self._owner = np.full(model.ngeom, -1)
        for index, slot in enumerate(self.slots):
            self._owner[slot.geoms] = index
        self._camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "frontview")
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geometry
        self._options.sitegroup[:] = 0
        materials = [model.material(index).name for index in range(model.nmat)]
        self.materials = {
            name.removeprefix("look_"): i for i, name in enumerate(materials) if name.startswith("look_")
        }
        self._base = {name: model.body_pos[model.body(name).id].copy() for name in ("table", *BINS)}
        self._renderer = mujoco.Renderer(model, height, width)

    def _slot(self, item: Item, thing: Any) -> Slot:
        geoms = [self.model.geom(name).id for name in thing.visual_geoms]
        joint = int(self.model.jnt_qposadr[self.model.joint(thing.joints[0]).id])
        looks = [int(self.model.geom_matid[geom]) for geom in geoms]
        return Slot(item, int(self.model.geom_bodyid[geoms[0]]), joint, geoms, looks)

    def own_points(self, slot: Slot) -> Array:
        """Points Px3 of an object's surface in the frame of its body."""
        found = []
        for geom in slot.geoms:
            matrix = np.zeros(9)
            self.mj.mju_quat2Mat(matrix, self.model.geom_quat[geom])
            found.append(geom_points(self.model, geom) @ matrix.reshape(3, 3).T + self.model.geom_pos[geom])
        return np.concatenate(found)

    def put(self, slot: Slot, position: Array, rotation: Array) -> None:
        """Move an object; call `update` afterwards."""
        quaternion = np.zeros(4)
        self.mj.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation, np.float64).ravel())
        self.data.qpos[slot.joint : slot.joint + 7] = [*position, *quaternion]

    def bury(self, slot: Slot) -> None:
        """Remove an object; call `update` afterwards."""
        self.data.qpos[slot.joint : slot.joint + 7] = [0.5 * self.slots.index(slot), 0, BURIED, 1, 0, 0, 0]

    def update(self) -> None:
        """Recompute positions after poses were set, without simulating."""
        self.mj.mj_kinematics(self.model, self.data)
        self.mj.mj_camlight(self.model, self.data)

    def surroundings(
        self, rng: np.random.Generator, layout: str, held_out: bool
    ) -> tuple[Array, Array, float]:
        """Set up table, bins and their surfaces. Returns centre and half sizes of the area for objects, and
        its height.

        layout: table, large table, floor, bin or divided bin.
        """
        model = self.model
        for name, place in self._base.items():
            model.body_pos[model.body(name).id] = place - [0, 0, 40]
        centre: Array = np.zeros(2)
        half: Array = np.array([0.36, 0.36])
        height = TABLE_HEIGHT
        if layout in ("table", "large table"):
            model.body_pos[model.body("table").id] = self._base["table"]
            wide = (0.4, 0.4) if layout == "table" else tuple(rng.uniform(0.42, 0.7, 2))
            model.geom_size[model.geom("table_visual").id][:2] = wide
        elif layout == "floor":
            centre, half, height = rng.uniform(-0.2, 0.5, 2), np.array([0.6, 0.6]), 0.0
        else:
            name = "bin1" if layout == "bin" else "bin2"
            model.body_pos[model.body(name).id] = self._base[name]
            centre, half, height = np.array(BINS[name]), np.array(BIN_HALF), BIN_HEIGHT
        self._cover(rng, held_out)
        return centre, half, height

    def _cover(self, rng: np.random.Generator, held_out: bool) -> None:
        model = self.model
        geoms = range(model.ngeom)
        bins = [
            g for g in geoms if model.body(int(model.geom_bodyid[g])).name in BINS and model.geom_group[g]
        ]
        walls = [g for g in geoms if model.geom(g).name.startswith("wall_")]
        names = split(list(self.materials), held_out) or list(self.materials)
        for group in ([model.geom("table_visual").id], [model.geom("floor").id], walls, bins):
            material = self.materials[names[int(rng.integers(len(names)))]]
            shade = np.ones(3) if rng.random() < 0.6 else 0.4 + 0.6 * muted(rng)
            model.mat_texrepeat[material] = float(rng.uniform(0.8, 5))
            for geom in group:
                model.geom_matid[geom] = material
                model.geom_rgba[geom] = [*shade, 1]

    def dress(self, rng: np.random.Generator, slot: Slot, thing: Thing, held_out: bool) -> None:
        """Give an object its original look, or paint it, plain or over a pale texture."""
        pale = [name for name in _PALE if held_out_name(name) == held_out and name in self.materials]
        textured = pale and rng.random() < 0.3
        material = self.materials[pale[int(rng.integers(len(pale)))]] if textured else -1
        own = thing.finish == OWN
        rgb = (
            (0.5, 0.5, 0.5) if own else paint(rng, thing.finish)
        )  # MuJoCo interprets this grey as "the material's own colour"
        for geom, look in zip(slot.geoms, slot.looks):
            self.model.geom_matid[geom] = look if own else material
            self.model.geom_rgba[geom] = [*rgb, 1]

    def light(self, rng: np.random.Generator) -> None:
        """Add one lamp anywhere above, and light from the camera."""
        model = self.model
        tint = 1 + rng.uniform(-0.08, 0.08) * np.array([1, 0, -1])
        model.vis.headlight.ambient[:] = rng.uniform(0.24, 0.45) * tint
        model.vis.headlight.diffuse[:] = rng.uniform(0.1, 0.4)
        model.vis.headlight.specular[:] = rng.uniform(0, 0.2)
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(30, 85))
        level = np.cos(elevation)
        ray = np.array([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(elevation)])
        model.light_pos[0], model.light_dir[0] = 3 * ray + [0, 0, 0.8], -ray
        model.light_diffuse[0] = rng.uniform(0.25, 0.8) * tint
        model.light_specular[0] = rng.uniform(0, 0.4)
        model.light_castshadow[0] = rng.random() < 0.7

    def point(self, camera: Camera) -> None:
        """Move the camera; call `update` afterwards."""
        quaternion = np.zeros(4)
        turn = camera.rotation * [1, -1, -1]  # MuJoCo's cameras look along -z with y up
        self.mj.mju_mat2Quat(quaternion, np.ascontiguousarray(turn).ravel())
        index, k = self._camera, camera.intrinsics
        self.model.cam_pos[index], self.model.cam_quat[index] = camera.position, quaternion
        self.model.cam_fovy[index] = np.rad2deg(2 * np.arctan(k.height / 2 / k.fy))

    def labels(self, only: Sequence[Slot] | None = None) -> NDArray[np.int64]:
        """Index of the slot at each pixel, -1 for none, HxW. only: ignore all other objects."""
        renderer = self._renderer
        renderer.enable_segmentation_rendering()
        renderer.update_scene(self.data, self._camera, self._options)
        if only is not None:
            kept = {geom for slot in only for geom in slot.geoms}
            scene = renderer.scene
            for index in range(scene.ngeom):
                if scene.geoms[index].objid not in kept:
                    scene.geoms[index].pos[:] = (0, 0, -500)
        pair = renderer.render()
        renderer.disable_segmentation_rendering()
        geoms = np.where(pair[..., 1] == int(self.mj.mjtObj.mjOBJ_GEOM), pair[..., 0], -1)
        return np.where(geoms >= 0, self._owner[geoms], -1)

    def see(
        self, placed: Sequence[Placed], camera: Camera, whole: dict[int, int]
    ) -> list[SceneObject | None]:
        """Describe each object as seen by the camera; None for one that is not clearly visible. whole: result
        of `whole_areas`."""
        labels = self.labels()
        seen = []
        for item in placed:
            index = self.slots.index(item.slot)
            place = (item.points, camera.rotation, camera.position)
            seen.append(scene_object(item.thing, labels == index, whole[index], *place))
        return seen

    def whole_areas(self, placed: Sequence[Placed], camera: Camera) -> dict[int, int]:
        """Number of pixels of each object, by slot index, if nothing hid it; objects whose outlines do not
        meet are drawn together."""
        waiting = [(item, outline_bounds(camera, item.points) + [-2, -2, 2, 2]) for item in placed]
        whole: dict[int, int] = {}
        while waiting:
            group: list[tuple[Placed, Array]] = []
            for item, box in waiting:
                if all(covered(box, other) == 0 for _, other in group):
                    group.append((item, box))
            labels = self.labels([item.slot for item, _ in group])
            for item, _ in group:
                index = self.slots.index(item.slot)
                whole[index] = int((labels == index).sum())
            taken = {id(item) for item, _ in group}
            waiting = [pair for pair in waiting if id(pair[0]) not in taken]
        return whole

    def picture(self) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres along the optical axis."""
        renderer = self._renderer
        renderer.update_scene(self.data, self._camera, self._options)
        rgb = renderer.render().copy()
        renderer.enable_depth_rendering()
        renderer.update_scene(self.data, self._camera, self._options)
        depth = renderer.render().astype(np.float32)
        renderer.disable_depth_rendering()
        return rgb, depth

    def close(self) -> None:
        """Free the OpenGL resources."""
        self._renderer.close()
        self.environment.close()


def covered(box: Array, other: Array) -> float:
    """Share of the smaller of two xyxy boxes that is covered by both."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    return shared / float(min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod()))
