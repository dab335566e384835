"""The worlds that scenes are set in, by name."""

from __future__ import annotations

import numpy as np

from groma_ros.simulation.floor import draw_floor
from groma_ros.simulation.layout import USUAL, Layout, Style
from groma_ros.simulation.shelf import draw_shelf
from groma_ros.simulation.table import draw_table
from groma_ros.simulation.vocabulary import ALL_WORDS, FIRST_WORDS, Vocabulary
from groma_ros.simulation.wide import WIDE_WORDS, draw_wide

WIDE = "wide"
_DRAWERS = {"table": draw_table, "shelf": draw_shelf, "room": draw_floor, WIDE: draw_wide}
WORLDS = tuple(_DRAWERS)
MIXED = "mixed"
DEFAULT_WORLD = "table"  # default of the commands
_SHARES = {"table": 0.5, "shelf": 0.25, "room": 0.25}  # share of each world in "mixed"


def world_of(world: str, seed: int) -> str:
    """Return the world of a seed: `world` itself, or for "mixed" one drawn from the seed, a table in half of
    the cases."""
    if world == MIXED:
        draw = np.random.default_rng([seed, 0, 1]).random()
        ends = np.cumsum(list(_SHARES.values()))
        return tuple(_SHARES)[int(np.searchsorted(ends, draw, side="right"))]
    if world not in _DRAWERS:
        raise ValueError(f"There is no world {world!r}; take one of {', '.join((MIXED, *WORLDS))}.")
    return world


def words_of(world: str) -> Vocabulary:
    """Return the names that goals about scenes of a world may use."""
    if world in (MIXED, *_SHARES):
        return FIRST_WORDS
    return WIDE_WORDS if world == WIDE else ALL_WORDS


def draw_layout(
    world: str,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    aspect: float,
    style: Style = USUAL,
) -> Layout | None:
    """Try to draw a scene of `count` objects in a world; None if they do not fit. size: (width, height),
    pixels."""
    return _DRAWERS[world](rng, count, size, aspect, style)
