"""robosuite's tables, bins, Panda and objects as one environment. Requires robosuite, which is installed only
in `.venv-sim`."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.simulation.world_objects import Array

TABLE_HEIGHT = 0.8
BIN_HEIGHT = 0.82
"""Height of a bin's floor, metres."""
BINS = {"bin1": (0.1, -0.25), "bin2": (0.1, 0.28)}
BIN_HALF = (0.19, 0.24)
_CLASSES = {
    "can": "CanObject",
    "carton": "MilkObject",
    "cereal box": "CerealObject",
    "loaf": "BreadObject",
    "lemon": "LemonObject",
    "bottle": "BottleObject",
    "pot": "PotWithHandlesObject",
    "hammer": "HammerObject",
    "box": "BoxObject",
    "ball": "BallObject",
    "cylinder": "CylinderObject",
}
PRIMITIVES = ("box", "ball", "cylinder")


@dataclass(frozen=True)
class Item:
    """An object of the environment."""

    name: str
    kind: str
    size: tuple[float, ...]
    """Half sizes of a box; radius and half height of other shapes, metres; for meshes the scale in each
    entry."""


def prepare() -> None:
    """Choose off-screen rendering and silence robosuite; call it before anything imports robosuite or
    mujoco."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    logging.disable(logging.WARNING)  # warns at import about parts that are not used here
    from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER

    logging.disable(logging.NOTSET)
    ROBOSUITE_DEFAULT_LOGGER.setLevel(logging.ERROR)


def texture_files() -> list[Path]:
    """Pictures with which robosuite covers surfaces, by name, without the labels of its groceries."""
    prepare()
    from robosuite.models import assets_root

    labels = {"bread", "can", "cereal", "glass", "lemon", "soda"}
    return sorted(path for path in (Path(assets_root) / "textures").glob("*.png") if path.stem not in labels)


def make_object(item: Item) -> Any:
    """Create the robosuite object of an item."""
    from robosuite.models import objects

    make = getattr(objects, _CLASSES[item.kind])
    if item.kind in PRIMITIVES:
        return make(name=item.name, size=item.size, rgba=(1, 1, 1, 1), density=200, friction=(1.5, 0.1, 0.01))
    # robosuite draws the proportions of a hammer, by default anew in every process.
    drawn = {"rng": np.random.default_rng(zlib.crc32(item.name.encode()))} if item.kind == "hammer" else {}
    thing = make(name=item.name, **drawn)
    if item.size[0] != 1:
        thing.set_scale([item.size[0]] * 3)
    return thing


def _add_textures(arena: Any, names: Sequence[str] | None) -> None:
    """Add a material `look_<name>` for each texture, or for some of them."""
    for path in texture_files():
        name = path.stem
        if names is not None and name not in names:
            continue
        ET.SubElement(arena.asset, "texture", {"file": str(path), "type": "2d", "name": f"look_{name}"})
        attributes = {"texture": f"look_{name}", "texuniform": "true", "texrepeat": "3 3", "specular": "0.2"}
        ET.SubElement(arena.asset, "material", {"name": f"look_{name}", **attributes})


def _add_bins(arena: Any) -> None:
    """Add the bins of robosuite's PickPlace beside the table's arena."""
    from robosuite.models.arenas import BinsArena

    bins = BinsArena()
    for kind, name in (
        ("texture", "tex-light-wood"),
        ("texture", "tex-dark-wood"),
        ("material", "light-wood"),
    ):
        arena.asset.append(bins.asset.find(f"./{kind}[@name='{name}']"))
    arena.asset.append(bins.asset.find("./material[@name='dark-wood']"))
    for name in BINS:
        arena.worldbody.append(bins.worldbody.find(f"./body[@name='{name}']"))


def make_environment(
    items: Sequence[Item],
    base: tuple[float, float, float] = (-0.56, 0.0, 0.0),
    textures: Sequence[str] | None = None,
) -> Any:
    """Create a robosuite environment: a table, two bins, a Panda at `base`, and the items, each on a free
    joint.

    textures: those that surfaces may get, None for all. Its `things` are the robosuite objects in the order
    of the items. It does not render; use `mujoco.Renderer`.
    """
    prepare()
    from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
    from robosuite.models.arenas import TableArena
    from robosuite.models.tasks import ManipulationTask

    class Table(ManipulationEnv):
        """A table with objects, without a reward."""

        def __init__(self) -> None:
            super().__init__(
                robots="Panda",
                controller_configs=_absolute_pose_control(),
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                ignore_done=True,
                initialization_noise=None,
                hard_reset=False,
            )

        def reward(self, action: Any = None) -> float:
            return 0.0

        def _load_model(self) -> None:
            super()._load_model()
            self.robots[0].robot_model.set_base_xpos(base)
            arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, TABLE_HEIGHT))
            arena.set_origin([0, 0, 0])
            _add_textures(arena, textures)
            _add_bins(arena)
            self.things = [make_object(item) for item in items]
            robots = [robot.robot_model for robot in self.robots]
            self.model = ManipulationTask(
                mujoco_arena=arena, mujoco_robots=robots, mujoco_objects=self.things
            )

    return Table()


def _absolute_pose_control() -> Any:
    """Config of the Panda's controller with absolute poses of the hand in the robot's frame."""
    from robosuite.controllers import load_composite_controller_config

    config = load_composite_controller_config(robot="Panda")
    arm = (
        config["body_parts"]["right"]
        if "right" in config["body_parts"]
        else config["body_parts"]["arms"]["right"]
    )
    arm["input_type"] = "absolute"
    arm["input_ref_frame"] = "base"
    return config


def geom_points(model: Any, geom: int) -> Array:
    """Points Px3 on the surface of a geom, in its own frame."""
    import mujoco

    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        return np.asarray(model.mesh_vert[start : start + model.mesh_vertnum[mesh]], np.float64)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1.0, 1)])
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return np.asarray(corners * size)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(24)])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        latitudes = np.linspace(-np.pi / 2, np.pi / 2, 13)
        rings = [circle * np.cos(a) + [0, 0, np.sin(a)] for a in latitudes]
        return np.asarray(np.concatenate(rings) * size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return np.concatenate([circle * size[0] + [0, 0, z * size[1]] for z in (-1, 1)])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return np.concatenate([circle * size[0] + [0, 0, z * size[1]] for z in (-1, 1)])
    raise ValueError(f"Geom {geom} of type {kind} has no points here.")
