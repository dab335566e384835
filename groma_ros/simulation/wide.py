"""The world `wide`: families of shapes in any pose, small and large, stacked, in trays, under any light, from
10 to 85 degrees above.

It varies what the other worlds keep fixed, so that a model trained on it depends less on their choices. The
ground is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.clutter import arm, mats, room
from groma_ros.simulation.colours import COLOURS, wide_paint
from groma_ros.simulation.drawing import TEXTURES, Camera, Geom
from groma_ros.simulation.families import (
    FAMILY_KINDS,
    LEMON_COLOURS,
    STACKABLE,
    draw_pose,
    make_member,
    outline,
)
from groma_ros.simulation.layout import (
    Body,
    Layout,
    Style,
    camera_at,
    colours_of,
    on_plane,
    outline_bounds,
)
from groma_ros.simulation.shapes import Array, Part, SolidShape, resized
from groma_ros.simulation.vocabulary import Vocabulary
from groma_ros.simulation.wide_surroundings import (
    draw_any_lights,
    draw_cables,
    draw_ground,
    draw_hand,
    draw_tray,
    thick_mats,
    tinted,
)

WIDE_WORDS = Vocabulary(FAMILY_KINDS, (*COLOURS, "brown", "grey"))
LEAST_PIXELS = 16 / 224**2  # share of the picture
_COUNTS = (2, 12)
_WIDTHS = (0.024, 0.42)  # width of objects, share of the picture
_USUAL = 0.09  # size of a medium object, metres
_PLACES = 24  # attempts for each object
_CLEAR = 0.004
_EDGE = 2.0
_SHARES = (0.05, 0.24)  # of the picture's width that a medium object covers
_ELEVATIONS = (10, 85)  # degrees
_CAST_SHARES, _CAST_ELEVATIONS = (0.13, 0.19), (27, 40)
_NEW_KINDS = {"can": 0.6, "carton": 0.6, "lemon": 0.4}  # relative frequency; each of `KINDS` has 1
_NEW_COLOURS = 0.4


@dataclass(frozen=True, eq=False)
class _Placed:
    """A body with its footprint (a convex polygon, float32 Px2), its lowest and highest z, and what it can
    carry."""

    body: Body
    foot: NDArray[Any]
    low: float
    high: float
    carries: str = ""  # "", "on" or "in"


def _labels(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Kinds and colours; half of the scenes use few of each, as in the other worlds."""
    kinds, colours = list(FAMILY_KINDS), [*COLOURS, "brown", "grey"]
    weights = np.array([_NEW_KINDS.get(kind, 1.0) for kind in kinds])
    shades = np.array([1.0] * len(COLOURS) + [_NEW_COLOURS] * 2)
    if rng.random() < 0.5:
        weights = _few(rng, weights)
    if rng.random() < 0.5:
        shades = _few(rng, shades)
    pairs = []
    for _ in range(count):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        colour = str(rng.choice(colours, p=shades / shades.sum()))
        pairs.append((kind, str(rng.choice(LEMON_COLOURS, p=(0.7, 0.2, 0.1))) if kind == "lemon" else colour))
    return pairs


def _few(rng: np.random.Generator, weights: Array) -> Array:
    chosen = rng.choice(len(weights), rng.integers(2, 5), replace=False, p=weights / weights.sum())
    kept = np.zeros(len(weights))
    kept[chosen] = weights[chosen]
    return kept


@dataclass(frozen=True)
class _Finish:
    """The surface of an object."""

    rgb: tuple[float, float, float]
    texture: int
    tile: float
    """Repeats of the texture per metre."""
    specular: float
    shininess: float


def _finish(rng: np.random.Generator, colour: str, size: float) -> _Finish:
    """Draw a surface finish: plain in half of the draws, else patterned; dull to glossy."""
    texture = int(rng.integers(len(TEXTURES))) if rng.random() < 0.45 else -1
    glossy = rng.random() < 0.25
    specular = rng.uniform(0.6, 1.0) if glossy else rng.uniform(0.3 if colour == "black" else 0.0, 0.5)
    return _Finish(
        wide_paint(rng, colour),
        texture,
        rng.uniform(0.7, 2.5) / size,
        specular,
        rng.uniform(0.5, 1.0) if glossy else rng.uniform(0.05, 0.6),
    )


def _draw(part: Part, turn: Array, place: Array, label: int, finish: _Finish) -> Geom:
    rotation = turn if part.rotation is None else turn @ part.rotation
    r, g, b = finish.rgb
    rgb = part.tone or (min(1.0, r * part.shade), min(1.0, g * part.shade), min(1.0, b * part.shade))
    texture = -1 if part.tone else finish.texture
    position = place + turn @ np.array(part.position)
    return Geom(
        part.shape,
        part.scale,
        position,
        rotation,
        rgb,
        label,
        finish.specular,
        finish.shininess,
        texture,
        finish.tile,
    )


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two convex polygons overlap (separating axis test over their edges)."""
    if (a.max(0) < b.min(0)).any() or (b.max(0) < a.min(0)).any():
        return False
    for polygon in (a, b):
        edges = np.roll(polygon, -1, 0) - polygon
        normals = np.stack([edges[:, 1], -edges[:, 0]], 1)
        one, other = normals @ a.T, normals @ b.T
        if ((one.max(1) < other.min(1)) | (other.max(1) < one.min(1))).any():
            return False
    return True


def _foot(points: Array, margin: float) -> NDArray[Any]:
    """Convex hull in x and y, grown by a margin."""
    hull = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
    middle = hull.mean(0)
    out = hull - middle
    return np.asarray(
        middle + out * (1 + margin / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)), np.float32
    )


class _Scene:
    """Objects placed one after another."""

    def __init__(
        self, rng: np.random.Generator, camera: Camera, reach: float, obstacles: list[NDArray[Any]]
    ) -> None:
        self._rng, self._camera, self._reach, self._obstacles = rng, camera, reach, obstacles
        self.placed: list[_Placed] = []
        self._boxes: list[Array] = []

    def add(self, label: int, kind: str, colour: str, solid: SolidShape, upright: bool = False) -> None:
        """Place an object in view, on the ground or sometimes on or in another object. Does nothing if there
        is no free place.

        upright: whether it must not lie, lean or be upside down; lemons always lie.
        """
        rng = self._rng
        pose, turn = draw_pose(kind, rng)
        while upright and pose != "standing" and kind != "lemon":
            pose, turn = draw_pose(kind, rng)
        finish = _finish(rng, colour, max(solid.size))
        points = outline(solid) @ turn.T
        points = points - [0, 0, points[:, 2].min()]
        lift = -(outline(solid) @ turn.T)[:, 2].min()
        for _ in range(_PLACES):
            base = self._base(points, pose) if rng.random() < 0.25 else None
            if base is None:
                spot = on_plane(rng, self._camera)
                if spot is None or np.hypot(*spot[:2]) > self._reach:
                    continue
                support, inside, place = -1, False, spot
            else:
                support, inside, place = base
            here = points + place
            if not self._free(here, support):
                continue
            box = outline_bounds(self._camera, here)
            if not self._visible(box):
                continue
            origin = place + [0, 0, lift]
            geoms = tuple(_draw(part, turn, origin, label, finish) for part in solid.parts)
            middle = (here.min(0) + here.max(0)) / 2
            body = Body(
                kind,
                colour,
                solid,
                origin,
                here,
                geoms,
                turn,
                None if pose == "standing" else middle,
                support,
                inside,
            )
            carries = "in" if kind == "bowl" and pose == "standing" else ""
            if (pose == "standing" and kind in STACKABLE) or (kind == "box" and pose == "lying"):
                carries = "on"
            self.placed.append(
                _Placed(body, _foot(here, _CLEAR), float(here[:, 2].min()), float(here[:, 2].max()), carries)
            )
            self._boxes.append(box)
            return

    def _base(self, points: Array, pose: str) -> tuple[int, bool, Array] | None:
        """Draw a place on top of or in an earlier object that is wide enough; None if there is none."""
        options = [
            i
            for i, p in enumerate(self.placed)
            if p.carries and not any(q.body.support == i for q in self.placed)
        ]
        if not options or pose == "tilted":
            return None
        index = options[int(self._rng.integers(len(options)))]
        under = self.placed[index]
        half = np.ptp(points[:, :2], axis=0) / 2
        room = np.ptp(under.foot, axis=0) / 2
        middle = under.foot.mean(0)
        if under.carries == "in":
            r, h = under.body.solid.size[0] / 2, under.body.solid.size[1]
            if np.hypot(*half) > 0.62 * r or np.ptp(points[:, 2]) < 0.5 * h:
                return None
            return (
                index,
                True,
                np.array([*middle, under.low + 0.3 * h])
                - [*((points[:, :2].max(0) + points[:, :2].min(0)) / 2), 0.0],
            )
        if (half > 1.15 * room).any():
            return None
        slack = np.maximum(room - half, 0.0) * 0.6
        shift = self._rng.uniform(-slack, slack)
        offset = (points[:, :2].max(0) + points[:, :2].min(0)) / 2
        return index, False, np.array([*(middle + shift - offset), under.high])

    def _free(self, points: Array, support: int) -> bool:
        foot = _foot(points, _CLEAR)
        low, high = float(points[:, 2].min()), float(points[:, 2].max())
        if any(_overlap(foot, obstacle) for obstacle in self._obstacles):
            return False
        return not any(
            i != support and low < p.high - 1e-6 and p.low < high and _overlap(foot, p.foot)
            for i, p in enumerate(self.placed)
        )

    def _visible(self, box: Array) -> bool:
        k = self._camera.intrinsics
        if (
            not np.isfinite(box).all()
            or (box[:2] < _EDGE).any()
            or box[2] > k.width - _EDGE
            or box[3] > k.height - _EDGE
        ):
            return False
        longer = max((box[2] - box[0]) / k.width, (box[3] - box[1]) / k.height)
        if not _WIDTHS[0] < longer < _WIDTHS[1]:
            return False
        return all(_hidden(box, other) < 0.5 and _hidden(other, box) < 0.5 for other in self._boxes)


def _hidden(box: Array, other: Array) -> float:
    """Share of a box that another covers."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    return float(np.clip(high - low, 0, None).prod() / max(float((box[2:] - box[:2]).prod()), 1e-9))


def draw_wide(
    rng: np.random.Generator, count: int, size: tuple[int, int], aspect: float, style: Style
) -> Layout | None:
    """Try to draw a scene of about `count` objects; None if they do not fit."""
    cast = style.cast
    count = int(np.clip(count + rng.integers(-3, 4), *_COUNTS))
    share = float(np.exp(rng.uniform(*np.log(_CAST_SHARES if cast else _SHARES))))
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.deg2rad(rng.uniform(*(_CAST_ELEVATIONS if cast else _ELEVATIONS)))
    half = style.view * np.tan(np.deg2rad(rng.uniform(30, 75)) / 2)
    span = max(_USUAL / share, 0.16 + 0.1 * np.sqrt(count) * (0.6 if share > 0.15 else 0.5))
    target = np.array([*(rng.uniform(-0.05, 0.05, 2) * span), rng.uniform(0.0, 0.06) * span])
    camera = camera_at(rng, target, azimuth, elevation, half, span, size, aspect)
    obstacles: list[NDArray[Any]] = []
    tray: list[Geom] = []
    if not cast and rng.random() < 0.22:
        tray, obstacles, _ = draw_tray(rng, span)
    scene = _Scene(rng, camera, 0.9 * span + 0.1, obstacles)
    for kind, colour in cast or _labels(rng, count):
        factor = float(np.exp(rng.normal(0, 0.22))) * style.size
        scene.add(len(scene.placed), kind, colour, resized(make_member(kind, rng), factor), bool(cast))
    bodies = tuple(p.body for p in scene.placed)
    if len(bodies) < (len(cast) or _COUNTS[0]):
        return None
    rgbs = colours_of(bodies)
    around = [
        *draw_ground(rng, rgbs, span),
        *room(rng, -float(rng.uniform(0.03, 0.9))),
        *thick_mats(mats(rng, rgbs, max(1.0, 1.2 * span)), span),
        *draw_cables(rng, span),
    ]
    draw = rng.random()
    screens: tuple[Geom, ...] = tuple(tray)
    if not cast and draw < 0.12 and span < 1.0:
        screens += tinted(rng, arm(rng, camera))
    elif not cast and draw < 0.22:
        screens += draw_hand(rng, camera, span)
    lights, ambient = draw_any_lights(rng)
    return Layout(bodies, tuple(around), screens, lights, ambient, camera, LEAST_PIXELS)
