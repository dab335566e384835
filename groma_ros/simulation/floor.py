"""The world `room`: large objects on the floor and on low furniture, seen by a robot that stands there. The
floor is z = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groma_ros.simulation.clutter import mats, room
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

_ON_FURNITURE = 0.35  # share of draws


@dataclass(frozen=True, eq=False)
class _Piece:
    """A piece of furniture."""

    name: str
    """Its form."""
    middle: Array
    """(x, y), metres."""
    turn: Array
    """3x3 rotation."""
    half: tuple[float, float, float]
    """Half width, half depth and height, metres."""
    carries: bool
    """Whether objects may stand on it."""

    def local(self, point: Array) -> Array:
        """x and y of a point in the piece's own axes."""
        return np.asarray((np.array([*(point[:2] - self.middle), 0.0]) @ self.turn)[:2])

    def stands(self, point: Array, reach: float) -> bool:
        """Whether a circle around a point on the floor overlaps the piece."""
        return bool((np.abs(self.local(point)) < np.array(self.half[:2]) + reach).all())


def _furniture(rng: np.random.Generator, camera: Camera, azimuth: float, span: float) -> list[_Piece]:
    """Draw up to three pieces of furniture behind or beside the middle of the view, which do not overlap."""
    pieces: list[_Piece] = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.15, 0.35, 0.3, 0.2]))):
        name = str(rng.choice(["cabinet", "table", "bench", "sofa"]))
        low, high = {"cabinet": (0.5, 1.1), "table": (0.25, 0.45), "bench": (0.15, 0.4), "sofa": (0.3, 0.42)}[
            name
        ]
        half = (rng.uniform(0.3, 0.6), rng.uniform(0.16, 0.3), rng.uniform(low, high))
        away = azimuth + np.pi + rng.uniform(-1.6, 1.6)
        middle = span * rng.uniform(0.3, 0.65) * np.array([np.cos(away), np.sin(away)])
        turn = rotation_z(away + np.pi / 2 + rng.uniform(-0.4, 0.4))
        radius = np.hypot(*half[:2])
        if all(np.hypot(*(other.middle - middle)) > radius + np.hypot(*other.half[:2]) for other in pieces):
            pieces.append(_Piece(name, middle, turn, half, name in ("table", "bench")))
    return pieces


def _places(camera: Camera, pieces: list[_Piece], radius: float) -> Spot:
    tops = [piece for piece in pieces if piece.carries]

    def spot(rng: np.random.Generator, reach: float) -> Array | None:
        if tops and rng.random() < _ON_FURNITURE:
            piece = tops[int(rng.integers(len(tops)))]
            free = np.array(piece.half[:2]) - reach
            if (free <= 0).any():
                return None
            x, y = piece.middle + (piece.turn @ [*rng.uniform(-free, free), 0.0])[:2]
            return np.array([x, y, piece.half[2]])
        point = on_plane(rng, camera)
        if (
            point is None
            or np.hypot(*point[:2]) > radius
            or any(piece.stands(point, reach) for piece in pieces)
        ):
            return None
        return point

    return spot


def _drawn(rng: np.random.Generator, piece: _Piece, rgbs: list[Array]) -> tuple[Geom, ...]:
    """The boxes that a piece is made of."""
    rgb, texture, tile = unlike(rng, rgbs), draw_texture(rng), float(rng.uniform(0.8, 3))
    width, depth, high = piece.half

    def block(half: tuple[float, float, float], at: tuple[float, float, float]) -> Geom:
        place = piece.turn @ np.array(at) + [*piece.middle, 0.0]
        return Geom("box", half, place, piece.turn, rgb, -1, 0.1, 0.2, texture, tile)

    if piece.name == "table":
        leg = (0.025, 0.025, high / 2 - 0.02)
        corners = [(x * (width - 0.04), y * (depth - 0.04), leg[2]) for x in (-1, 1) for y in (-1, 1)]
        return (block((width, depth, 0.02), (0, 0, high - 0.02)), *(block(leg, at) for at in corners))
    body = block((width, depth, high / 2), (0, 0, high / 2))
    if piece.name != "sofa":
        return (body,)
    arms = [block((0.05, depth, 0.09), (side * (width - 0.05), 0, high + 0.09)) for side in (-1, 1)]
    return (body, block((width, 0.06, 0.2), (0, depth - 0.06, high + 0.2)), *arms)


def draw_floor(
    rng: np.random.Generator, count: int, size: tuple[int, int], aspect: float, style: Style
) -> Layout | None:
    """Try to draw a scene of `count` objects; None if they do not fit."""
    scale = rng.uniform(1.4, 2.3)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(20, 44))
    half = style.view * np.tan(np.deg2rad(rng.uniform(46, 68)) / 2)
    span = scale * (rng.uniform(0.44, 0.58) + 0.022 * count)
    target = np.array([*rng.uniform(-0.06, 0.06, 2), rng.uniform(0.0, 0.1)])
    camera = camera_at(rng, target, azimuth, elevation, half, span, size, aspect)
    pieces = _furniture(rng, camera, azimuth, span)
    bodies = place_all(rng, count, camera, _places(camera, pieces, 0.75 * span), style, scale)
    if bodies is None:
        return None
    rgbs = colours_of(bodies)
    ground = room(rng, 0.0, unlike(rng, rgbs))
    lights, ambient = draw_lights(rng)
    furniture = tuple(geom for piece in pieces for geom in _drawn(rng, piece, rgbs))
    return Layout(bodies, (*ground, *mats(rng, rgbs, scale)), furniture, lights, ambient, camera)
