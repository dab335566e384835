"""The world `table`: objects on a table in a room, seen from any side and well above. The table's top is z =
0."""

from __future__ import annotations

import numpy as np

from groma_ros.simulation.clutter import arm, boards, mats, room
from groma_ros.simulation.drawing import Camera, Geom
from groma_ros.simulation.layout import (
    Layout,
    Spot,
    Style,
    camera_at,
    colours_of,
    draw_lights,
    draw_texture,
    on_plane,
    place_all,
    unlike,
)
from groma_ros.simulation.shapes import Array, rotation_z

_RADIUS = 0.42


def draw_camera(
    rng: np.random.Generator, count: int, size: tuple[int, int], aspect: float, style: Style
) -> Camera:
    """Draw a camera that looks at the middle of the table."""
    elevation, azimuth = np.deg2rad(rng.uniform(30, 60)), rng.uniform(0, 2 * np.pi)
    half = style.view * np.tan(np.deg2rad(rng.uniform(34, 56)) / 2)
    span = rng.uniform(0.42, 0.56) + 0.022 * count
    target = np.array([*rng.uniform(-0.03, 0.03, 2), rng.uniform(0.0, 0.05)])
    return camera_at(rng, target, azimuth, elevation, half, span, size, aspect)


def _top(camera: Camera) -> Spot:
    def spot(rng: np.random.Generator, reach: float) -> Array | None:
        point = on_plane(rng, camera)
        return None if point is None or np.hypot(*point[:2]) > _RADIUS else point

    return spot


def _table(rng: np.random.Generator, rgbs: list[Array]) -> Geom:
    rgb = unlike(rng, rgbs)
    half = rng.uniform(0.46, 0.85, 2)
    texture = draw_texture(rng)
    size, place = (half[0], half[1], 0.02), np.array([0, 0, -0.02])
    tile = float(rng.uniform(1.2, 4))
    return Geom("box", size, place, rotation_z(rng.uniform(0, np.pi)), rgb, -1, 0.1, 0.2, texture, tile)


def draw_table(
    rng: np.random.Generator, count: int, size: tuple[int, int], aspect: float, style: Style
) -> Layout | None:
    """Try to draw a scene of `count` objects; None if they do not fit."""
    camera = draw_camera(rng, count, size, aspect, style)
    bodies = place_all(rng, count, camera, _top(camera), style)
    if bodies is None:
        return None
    rgbs = colours_of(bodies)
    table = _table(rng, rgbs)
    surroundings = (table, *room(rng), *mats(rng, rgbs), *boards(rng, camera, rgbs))
    robot = arm(rng, camera) if rng.random() < 0.25 else ()
    lights, ambient = draw_lights(rng)
    return Layout(bodies, surroundings, robot, lights, ambient, camera)
