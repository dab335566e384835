"""Surroundings of a scene that are never a target: room, mats, boards, a robot arm."""

from __future__ import annotations

import numpy as np

from groma_ros.simulation.colours import contrast, muted
from groma_ros.simulation.drawing import TEXTURES, Camera, Geom
from groma_ros.simulation.shapes import Array, rotation_z

_FLOOR, _ROOM = -0.75, 2.6


def _rgb(colour: Array) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])


def _texture(rng: np.random.Generator) -> int:
    return int(rng.integers(-1, len(TEXTURES)))


def room(
    rng: np.random.Generator, height: float = _FLOOR, rgb: tuple[float, float, float] | None = None
) -> tuple[Geom, ...]:
    """A floor at `height`, metres, of a given or a random colour, and four walls."""
    floor, wall = _rgb(muted(rng)), _rgb(0.35 + 0.6 * muted(rng))
    floor = floor if rgb is None else rgb
    texture, tile = _texture(rng), rng.uniform(0.4, 1.5)
    ground = np.array([0, 0, height - 0.05])
    geoms = [Geom("box", (_ROOM, _ROOM, 0.05), ground, np.eye(3), floor, texture=_texture(rng), tile=tile)]
    turn = rotation_z(rng.uniform(0, np.pi / 2))
    for side in range(4):
        rotation = turn @ rotation_z(side * np.pi / 2)
        place = rotation @ np.array([_ROOM, 0, 0.6])
        geoms.append(Geom("box", (0.05, _ROOM, 1.6), place, rotation, wall, texture=texture, tile=tile))
    return tuple(geoms)


def mats(rng: np.random.Generator, rgbs: list[Array], scale: float = 1.0) -> tuple[Geom, ...]:
    """Up to three flat mats or stripes of tape on the ground, in colours that differ from the objects';
    scale: factor on them."""
    geoms = []
    for layer in range(int(rng.choice([0, 1, 2, 3], p=[0.5, 0.25, 0.15, 0.1]))):
        colour = muted(rng)
        for _ in range(8):
            if contrast(colour, rgbs) > 0.3:
                break
            colour = muted(rng)
        size = rng.uniform(0.07, 0.2, 2) if rng.random() < 0.6 else np.array([rng.uniform(0.006, 0.02), 0.45])
        size = scale * size
        place = np.array([*(scale * rng.uniform(-0.22, 0.22, 2)), 0.0004 * (layer + 1)])
        turn = rotation_z(rng.uniform(0, np.pi))
        geoms.append(
            Geom(
                "box", (size[0], size[1], 0.0004), place, turn, _rgb(colour), texture=_texture(rng), tile=5.0
            )
        )
    return tuple(geoms)


def boards(rng: np.random.Generator, camera: Camera, rgbs: list[Array]) -> tuple[Geom, ...]:
    """Draw an upright board behind everything on the table, or nothing."""
    if rng.random() > 0.2:
        return ()
    ahead = camera.rotation[:, 2] * [1, 1, 0]
    ahead = ahead / np.linalg.norm(ahead)
    aside = np.array([-ahead[1], ahead[0], 0.0])
    height = rng.uniform(0.1, 0.4)
    place = ahead * rng.uniform(0.54, 0.8) + aside * rng.uniform(-0.4, 0.4) + [0, 0, height]
    turn = np.stack([ahead, aside, [0, 0, 1.0]], 1) @ rotation_z(rng.uniform(-0.25, 0.25))
    colour = muted(rng)
    return (
        Geom(
            "box",
            (0.01, rng.uniform(0.25, 0.6), height),
            place,
            turn,
            _rgb(colour),
            texture=_texture(rng),
            tile=3.0,
        ),
    )


def _link(
    start: Array, end: Array, radius: float, rgb: tuple[float, float, float], shape: str = "cylinder"
) -> Geom:
    """A round bar between two points."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    z = axis / length
    x = np.cross(z, [0.3, 0.5, 0.8])
    x = x / np.linalg.norm(x)
    return Geom(
        shape,
        (radius, length / 2, 0),
        (start + end) / 2,
        np.stack([x, np.cross(z, x), z], 1),
        rgb,
        specular=0.4,
    )


def arm(rng: np.random.Generator, camera: Camera) -> tuple[Geom, ...]:
    """Draw a grey robot arm that reaches over the table from a side away from the camera, with its gripper
    above the objects."""
    toward = np.arctan2(camera.position[1], camera.position[0])
    azimuth = toward + np.pi + rng.uniform(-1.7, 1.7)
    levels = ((0.3, 0.75), (0.12, 0.3), (0.2, 0.4))
    shell, joint, finger = (
        _rgb(np.full(3, rng.uniform(*level)) + rng.normal(0, 0.01, 3)) for level in levels
    )
    out = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    tip = out * rng.uniform(0.05, 0.3) + [*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.16, 0.28)]
    wrist = tip + np.array([0, 0, 0.11])
    elbow = wrist + out * rng.uniform(0.18, 0.3) + [0, 0, rng.uniform(0.05, 0.25)]
    shoulder = out * rng.uniform(0.75, 0.95) + [0, 0, rng.uniform(0.0, 0.25)]
    turn = rotation_z(rng.uniform(0, np.pi))
    spread = rng.uniform(0.02, 0.045)
    links = [_link(wrist, elbow, 0.032, shell), _link(elbow, shoulder, 0.042, shell)]
    links.append(_link(wrist, wrist - [0, 0, 0.04], 0.036, joint))
    balls = [Geom("ball", (r, r, r), at, np.eye(3), joint) for at, r in ((wrist, 0.038), (elbow, 0.05))]
    palm = Geom("box", (0.055, 0.02, 0.014), wrist - [0, 0, 0.052], turn, joint)
    fingers = [
        Geom("box", (0.006, 0.011, 0.03), wrist - [0, 0, 0.09] + turn @ [s * spread, 0, 0], turn, finger)
        for s in (-1, 1)
    ]
    return (*links, *balls, palm, *fingers)
