"""Random tabletop scenes as numbers: objects on a table, a room, lights, a camera. Nothing is drawn here.

The world's z is up and the table's top is z = 0, its middle the origin. Metres and radians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from groma_ros.simulation.clutter import arm, boards, mats, room
from groma_ros.simulation.colours import COLOURS, contrast, muted, paint
from groma_ros.simulation.drawing import TEXTURES, Camera, Geom, Light, World
from groma_ros.simulation.shapes import KINDS, Array, Part, Solid, make_solid, part_points, rotation_z
from groma_ros.types import Intrinsics

MIN_OBJECTS, MAX_OBJECTS = 4, 9
ASPECTS = (1.0, 4 / 3, 16 / 9)
_GAP = 0.012
_EDGE = 2.0


def _reach(solid: Solid) -> float:
    return max(solid.size[0], solid.size[2]) / 2


@dataclass(frozen=True, eq=False)
class Body:
    """An object on the table.

    place: its origin (x, y, 0); outline: Px3 world points that bound it; geoms: how it is drawn; turn: 3x3, its own axes in the
    world's.
    """

    kind: str
    colour: str
    solid: Solid
    place: Array
    outline: Array
    geoms: tuple[Geom, ...]
    turn: Array

    @property
    def reach(self) -> float:
        """Radius of the circle on the table that it may cover, metres."""
        return _reach(self.solid)

    @property
    def centre(self) -> Array:
        """Middle of its height above its origin, world."""
        return self.place + np.array([0, 0, self.solid.size[1] / 2])

    def box(self) -> tuple[Array, Array, Array]:
        """The box around its outline with its z up: centre in the world, 3x3 of its axes as columns, size along them; x is the
        longer side."""
        local = (self.outline - self.place) @ self.turn
        low, high = local.min(0), local.max(0)
        centre, size = self.place + self.turn @ ((low + high) / 2), high - low
        if size[1] > size[0]:
            return centre, self.turn @ rotation_z(np.pi / 2), size[[1, 0, 2]]
        return centre, self.turn, size


@dataclass(frozen=True, eq=False)
class Layout:
    """A whole scene. bodies are labelled 0, 1, ...; surroundings: table, room, clutter; arm: the robot, which may hide things."""

    bodies: tuple[Body, ...]
    surroundings: tuple[Geom, ...]
    arm: tuple[Geom, ...]
    lights: tuple[Light, ...]
    ambient: Array
    camera: Camera

    def world(self) -> World:
        """Everything there is."""
        objects = tuple(geom for body in self.bodies for geom in body.geoms)
        return World(self.surroundings + objects + self.arm, self.lights, self.ambient)

    def only(self, indices: list[int]) -> World:
        """Some of the objects with nothing around them, as if nothing hid them."""
        return World(tuple(geom for i in indices for geom in self.bodies[i].geoms), self.lights, self.ambient)

    def bounds(self) -> Array:
        """Projected outlines of the bodies, Nx4 xyxy pixels, whether hidden or not."""
        return np.array([outline_bounds(self.camera, body.outline) for body in self.bodies])

    def arm_bounds(self) -> Array:
        """Projected outlines of the arm's parts, Mx4 xyxy pixels; a part that reaches behind the camera covers everything."""
        bounds = [outline_bounds(self.camera, geom_points(geom)) for geom in self.arm]
        return np.array([[-np.inf, -np.inf, *box[2:]] if np.isinf(box[2:]).any() else box for box in bounds]).reshape(-1, 4)


def geom_points(geom: Geom) -> Array:
    """World points that bound a geom."""
    return part_points(Part(geom.shape, geom.scale)) @ geom.rotation.T + geom.position


def outline_bounds(camera: Camera, points: Array) -> Array:
    """xyxy pixels of the projected points."""
    pixels = camera.project(points)
    return np.concatenate([pixels.min(0), pixels.max(0)])


def draw_camera(rng: np.random.Generator, count: int, width: int, height: int, aspect: float) -> Camera:
    """A camera that looks at the middle of the table; `aspect` is that of the camera whose picture fills width x height."""
    elevation, azimuth = np.deg2rad(rng.uniform(30, 60)), rng.uniform(0, 2 * np.pi)
    half = np.tan(np.deg2rad(rng.uniform(34, 56)) / 2)
    span = rng.uniform(0.42, 0.56) + 0.022 * count  # metres across the picture at the middle of the table
    target = np.array([*rng.uniform(-0.03, 0.03, 2), rng.uniform(0.0, 0.05)])
    position, rotation = look_at(target, azimuth, elevation, span / (2 * half), np.deg2rad(rng.normal(0, 2.0)))
    fx, fy = width / (2 * half * np.sqrt(aspect)), height * np.sqrt(aspect) / (2 * half)
    return Camera(position, rotation, Intrinsics(fx, fy, width / 2, height / 2, width, height))


def look_at(target: Array, azimuth: float, elevation: float, distance: float, roll: float) -> tuple[Array, Array]:
    """Position and rotation (columns right, down, forward) of a camera at `distance` from `target`, seen from `azimuth`."""
    back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    down = np.cross(-back, right)
    c, s = np.cos(roll), np.sin(roll)
    return target + distance * back, np.stack([c * right + s * down, c * down - s * right, -back], 1)


def draw_labels(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` pairs of kind and colour. Half of the scenes use few of each, so that pairs and hard absences are many."""
    kinds, colours = list(KINDS), list(COLOURS)
    if rng.random() < 0.5:
        kinds = list(rng.choice(kinds, rng.integers(2, 5), replace=False))
    if rng.random() < 0.5:
        colours = list(rng.choice(colours, rng.integers(2, 5), replace=False))
    return [(str(rng.choice(kinds)), str(rng.choice(colours))) for _ in range(count)]


def _make_body(rng: np.random.Generator, label: int, kind: str, colour: str, solid: Solid, place: Array, camera: Camera) -> Body:
    yaw = rng.uniform(0, 2 * np.pi)
    if solid.handle:  # to the left or the right of the picture, so that it never hides behind the cup
        right = camera.rotation[:, 0]
        yaw = np.arctan2(right[1], right[0]) + np.pi * rng.integers(2) + np.deg2rad(rng.uniform(-40, 40))
    turn = rotation_z(yaw)
    rgb, specular = paint(rng, colour), rng.uniform(0.3 if colour == "black" else 0.05, 0.5)
    geoms, points = [], []
    for part in solid.parts:
        rotation = turn if part.rotation is None else turn @ part.rotation
        position = place + turn @ np.array(part.position)
        shade = (rgb[0] * part.shade, rgb[1] * part.shade, rgb[2] * part.shade)
        geoms.append(Geom(part.shape, part.scale, position, rotation, shade, label, specular, rng.uniform(0.1, 0.8)))
        points.append(part_points(part) @ turn.T + place)
    return Body(kind, colour, solid, place, np.concatenate(points), tuple(geoms), turn)


def _hidden(box: Array, others: list[Array]) -> float:
    """Largest share of `box` that one of the other boxes covers."""
    shares = [0.0]
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
        shares.append(float(np.clip(high - low, 0, None).prod() / (box[2:] - box[:2]).prod()))
    return max(shares)


def _place(rng: np.random.Generator, label: int, kind: str, colour: str, camera: Camera, placed: list[Body]) -> Body | None:
    """Put an object where it stands free, wholly in view and mostly unhidden; None if no place was found."""
    solid = make_solid(kind, rng)
    reach = _reach(solid)
    k = camera.intrinsics
    limit = np.array([_EDGE, _EDGE, k.width - _EDGE, k.height - _EDGE])
    bounds = [outline_bounds(camera, body.outline) for body in placed]
    for _ in range(30):
        pixel = rng.uniform(0.06, 0.94, 2) * [k.width, k.height]
        ray = camera.rotation @ [(pixel[0] - k.cx) / k.fx, (pixel[1] - k.cy) / k.fy, 1.0]
        if ray[2] > -0.05:
            continue
        place = camera.position - ray * (camera.position[2] / ray[2])
        if np.hypot(*place[:2]) > 0.42:
            continue
        gaps = (np.hypot(*(body.place - place)[:2]) - body.reach - reach for body in placed)
        if any(gap < _GAP for gap in gaps):
            continue
        body = _make_body(rng, label, kind, colour, solid, np.array([place[0], place[1], 0.0]), camera)
        box = outline_bounds(camera, body.outline)
        inside = (box[:2] >= limit[:2]).all() and (box[2:] <= limit[2:]).all()
        if inside and _hidden(box, bounds) < 0.45 and all(_hidden(other, [box]) < 0.45 for other in bounds):
            return body
    return None


def draw_lights(rng: np.random.Generator, camera: Camera) -> tuple[tuple[Light, ...], Array]:
    """A main light that casts shadows, a weaker one from the other side, and the ambient rgb."""
    tint = 1 + rng.uniform(-0.05, 0.05) * np.array([1, 0, -1])
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(38, 75))
    level = rng.uniform(0.42, 0.68)

    def ray(azimuth: float, elevation: float) -> Array:
        return np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])

    main, other = ray(azimuth, elevation), ray(azimuth + rng.uniform(2, 4.2), np.deg2rad(rng.uniform(30, 70)))
    lights = (
        Light(1.5 * main, -main, level * tint, rng.uniform(0.1, 0.5), bool(rng.random() < 0.85)),
        Light(1.5 * other, -other, np.full(3, rng.uniform(0.08, 0.28)), 0.1),
    )
    return lights, rng.uniform(0.34, 0.5) * tint


def _table(rng: np.random.Generator, rgbs: list[Array]) -> Geom:
    """A table top in a colour that few objects share."""
    wanted = 0.0 if rng.random() < 0.04 else 0.3
    colour = muted(rng)
    for _ in range(20):
        if contrast(colour, rgbs) > wanted:
            break
        colour = muted(rng)
    half = rng.uniform(0.46, 0.85, 2)
    texture = int(rng.integers(-1, len(TEXTURES)))
    rgb = (float(colour[0]), float(colour[1]), float(colour[2]))
    size, place = (half[0], half[1], 0.02), np.array([0, 0, -0.02])
    tile = float(rng.uniform(1.2, 4))
    return Geom("box", size, place, rotation_z(rng.uniform(0, np.pi)), rgb, -1, 0.1, 0.2, texture, tile)


def draw_layout(rng: np.random.Generator, count: int, width: int, height: int, aspect: float) -> Layout | None:
    """One try at a scene of `count` objects; None where they found no room."""
    camera = draw_camera(rng, count, width, height, aspect)
    bodies: list[Body] = []
    for label, (kind, colour) in enumerate(draw_labels(rng, count)):
        body = _place(rng, label, kind, colour, camera, bodies)
        if body is None:
            return None
        bodies.append(body)
    rgbs = [np.array(body.geoms[0].rgb) for body in bodies]
    table = _table(rng, rgbs)
    surroundings = (table, *room(rng), *mats(rng, rgbs), *boards(rng, camera, rgbs))
    robot = arm(rng, camera) if rng.random() < 0.25 else ()
    lights, ambient = draw_lights(rng, camera)
    return Layout(tuple(bodies), surroundings, robot, lights, ambient, camera)


def seen_from(layout: Layout, camera: Camera) -> Layout:
    """The same scene through another camera."""
    return replace(layout, camera=camera)
