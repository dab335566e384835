"""The world `shelf`: objects on the boards of a shelf, seen from the front. The lowest board's top is z = 0,
the front faces -y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groma_ros.simulation.clutter import room
from groma_ros.simulation.colours import muted
from groma_ros.simulation.drawing import Geom
from groma_ros.simulation.layout import (
    Layout,
    Spot,
    Style,
    camera_at,
    colours_of,
    draw_lights,
    draw_texture,
    place_all,
    unlike,
)
from groma_ros.simulation.shapes import Array

_FRONT = -np.pi / 2
_THICK = 0.009  # half of a board's


@dataclass(frozen=True)
class _Shelf:
    """Dimensions of a shelf, metres."""

    levels: int
    """Number of boards that carry objects."""
    gap: float
    """From the top of a board to that of the next."""
    half: tuple[float, float]
    """Half width and half depth."""
    roof: bool


def _draw_shelf(rng: np.random.Generator, style: Style) -> _Shelf:
    levels = int(rng.choice([2, 3], p=[0.6, 0.4]))
    gap = rng.uniform(0.2, 0.27) * max(1.0, style.size)
    return _Shelf(
        levels,
        gap,
        (rng.uniform(0.42, 0.65), rng.uniform(0.15, 0.2) * max(1.0, style.size)),
        bool(rng.random() < 0.5),
    )


def _books(rng: np.random.Generator, shelf: _Shelf) -> tuple[tuple[Geom, ...], int, tuple[float, float]]:
    """Draw a row of muted books at one end of a board, or none: its geoms, its board, and its ends in x."""
    if rng.random() > 0.35:
        return (), -1, (0.0, 0.0)
    level, side = int(rng.integers(shelf.levels)), rng.choice([-1, 1])
    at = start = side * rng.uniform(0.1, 0.9) * shelf.half[0]
    geoms = []
    for _ in range(int(rng.integers(2, 7))):
        thick, high, deep = rng.uniform(0.01, 0.022), rng.uniform(0.06, 0.085), rng.uniform(0.05, 0.08)
        if abs(at + 2 * side * thick) > shelf.half[0] - 0.01:
            break
        place = np.array([at + side * thick, shelf.half[1] - deep - 0.01, level * shelf.gap + high])
        colour = muted(rng)
        rgb = (float(colour[0]), float(colour[1]), float(colour[2]))
        geoms.append(
            Geom("box", (thick, deep, high), place, np.eye(3), rgb, texture=draw_texture(rng), tile=6.0)
        )
        at += 2 * side * thick
    return tuple(geoms), level, (min(start, at), max(start, at))


def _boards(shelf: _Shelf, level: int, row: tuple[float, float]) -> Spot:
    """Return a function that draws places on the boards. row: ends in x of the books on the board `level`,
    which are avoided."""

    def spot(rng: np.random.Generator, reach: float) -> Array | None:
        board = int(rng.integers(shelf.levels))
        room = np.array(shelf.half) - reach * np.array([1.0, 0.9])
        x, y = rng.uniform(-room, room) if (room > 0).all() else (np.nan, np.nan)
        if np.isnan(x) or (board == level and row[0] - reach < x < row[1] + reach):
            return None
        return np.array([x, y, board * shelf.gap])

    return spot


def _frame(
    rng: np.random.Generator, shelf: _Shelf, rgbs: list[Array]
) -> tuple[tuple[Geom, ...], tuple[Geom, ...]]:
    """Boards and sides, which may hide things, and what stands behind everything."""
    rgb, texture, tile = unlike(rng, rgbs), draw_texture(rng), float(rng.uniform(1.2, 4))
    width, depth = shelf.half
    tops = [level * shelf.gap for level in range(shelf.levels + shelf.roof)]

    def plank(half: tuple[float, float, float], place: tuple[float, float, float]) -> Geom:
        return Geom("box", half, np.array(place), np.eye(3), rgb, -1, 0.1, 0.2, texture, tile)

    boards = [plank((width, depth, _THICK), (0, 0, top - _THICK)) for top in tops]
    middle, tall = (tops[-1] - 2 * _THICK) / 2, tops[-1] / 2 + _THICK
    if rng.random() < 0.75:
        boards += [plank((_THICK, depth, tall), (side * (width + _THICK), 0, middle)) for side in (-1, 1)]
    behind = []
    if rng.random() < 0.6:
        back = rgb if rng.random() < 0.5 else unlike(rng, rgbs)
        behind.append(
            Geom(
                "box",
                (width, 0.005, tall),
                np.array([0, depth + 0.005, middle]),
                np.eye(3),
                back,
                texture=texture,
                tile=tile,
            )
        )
    if rng.random() < 0.7:
        place = np.array([0, depth + rng.uniform(0.03, 0.3), 0.5])
        wall, pattern, repeats = unlike(rng, rgbs), draw_texture(rng), float(rng.uniform(0.4, 2))
        behind.append(Geom("box", (2.5, 0.01, 2.0), place, np.eye(3), wall, texture=pattern, tile=repeats))
    return tuple(boards), tuple(behind)


def draw_shelf(
    rng: np.random.Generator, count: int, size: tuple[int, int], aspect: float, style: Style
) -> Layout | None:
    """Try to draw a scene of `count` objects; None if they do not fit."""
    shelf = _draw_shelf(rng, style)
    azimuth, elevation = _FRONT + rng.uniform(-0.5, 0.5), np.deg2rad(rng.uniform(16, 38))
    half = style.view * np.tan(np.deg2rad(rng.uniform(34, 56)) / 2)
    span = rng.uniform(0.5, 0.62) + 0.022 * count
    height = shelf.gap * rng.uniform(0.35, 0.6) * (shelf.levels - 1) + rng.uniform(0.02, 0.08)
    camera = camera_at(
        rng, np.array([rng.uniform(-0.08, 0.08), 0, height]), azimuth, elevation, half, span, size, aspect
    )
    books, level, row = _books(rng, shelf)
    bodies = place_all(rng, count, camera, _boards(shelf, level, row), style)
    if bodies is None:
        return None
    boards, behind = _frame(rng, shelf, colours_of(bodies))
    lights, ambient = draw_lights(rng, azimuth)
    return Layout(
        bodies, (*behind, *room(rng, -rng.uniform(0.05, 0.9))), (*boards, *books), lights, ambient, camera
    )
