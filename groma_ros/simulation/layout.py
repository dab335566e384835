"""Random layouts of scenes of every world: objects, lights, a camera. Nothing is rendered here.

The world's z is up; objects stand on the plane z = 0 near the origin unless their world says otherwise.
Metres and radians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from groma_ros.simulation.colours import COLOURS, contrast, muted, paint, unusual_paint
from groma_ros.simulation.drawing import TEXTURES, Camera, Geom, Light, World
from groma_ros.simulation.shapes import (
    KINDS,
    Array,
    Part,
    SolidShape,
    make_solid,
    part_points,
    resized,
    rotation_z,
)
from groma_ros.types import Intrinsics

MIN_PIXELS = 60 / 224**2  # share of the picture
_GAP = 0.012
_EDGE = 2.0


@dataclass(frozen=True)
class Style:
    """Deviation of scenes from those of training, which use the defaults."""

    size: float = 1.0
    """Factor on the size of objects."""
    view: float = 1.0
    """Factor on the camera's field of view."""
    unusual_colours: bool = False
    """Whether to use shades that training does not contain."""
    cast: tuple[tuple[str, str], ...] = ()
    """Kind and colour of every object, instead of random ones. The objects are set upright on a table in good
    view, as on a photograph. Only the world `wide` uses it."""


USUAL = Style()

Spot = Callable[[np.random.Generator, float], Array | None]
"""Draws a place for an object of a radius (metres); None if the draw is not usable."""


def _reach(solid: SolidShape) -> float:
    return max(solid.size[0], solid.size[2]) / 2


@dataclass(frozen=True, eq=False)
class Body:
    """An object in a scene."""

    kind: str
    colour: str
    solid: SolidShape
    place: Array
    """Its origin, the centre of its base, world."""
    outline: Array
    """Px3 world points that bound it."""
    geoms: tuple[Geom, ...]
    """Solids it is drawn with."""
    turn: Array
    """3x3, its own axes in world axes."""
    middle: Array | None = None
    """Centre of an object that does not stand upright, world; None for others."""
    support: int = -1
    """Index of the object that it stands on or lies in, -1 for none."""
    inside: bool = False
    """Whether it lies in its support."""

    @property
    def reach(self) -> float:
        """Radius of the circle that it may cover on the ground, metres."""
        return _reach(self.solid)

    @property
    def centre(self) -> Array:
        """Middle of its height above its origin, world."""
        if self.middle is not None:
            return self.middle
        centre: Array = self.place + np.array([0, 0, self.solid.size[1] / 2])
        return centre

    def box(self) -> tuple[Array, Array, Array]:
        """Upright box around its outline: centre in the world, 3x3 axes as columns, size along them. x is the
        longer side."""
        local = (self.outline - self.place) @ self.turn
        low, high = local.min(0), local.max(0)
        centre, size = self.place + self.turn @ ((low + high) / 2), high - low
        if size[1] > size[0]:
            return centre, self.turn @ rotation_z(np.pi / 2), size[[1, 0, 2]]
        return centre, self.turn, size


@dataclass(frozen=True, eq=False)
class Layout:
    """A whole scene; bodies are labelled 0, 1, ..."""

    bodies: tuple[Body, ...]
    surroundings: tuple[Geom, ...]
    """Geoms that hide no object."""
    screens: tuple[Geom, ...]
    """Geoms that may hide objects, such as a robot's arm."""
    lights: tuple[Light, ...]
    ambient: Array
    camera: Camera
    least: float = MIN_PIXELS
    """Share of the picture that every object must cover at least."""

    def world(self) -> World:
        """Return the world with everything in it."""
        objects = tuple(geom for body in self.bodies for geom in body.geoms)
        return World(self.surroundings + objects + self.screens, self.lights, self.ambient)

    def only(self, indices: list[int]) -> World:
        """Return a world with some of the objects only, so that nothing else hides them."""
        return World(tuple(geom for i in indices for geom in self.bodies[i].geoms), self.lights, self.ambient)

    def bounds(self) -> Array:
        """Projected outlines of the bodies, Nx4 xyxy pixels, whether hidden or not."""
        return np.array([outline_bounds(self.camera, body.outline) for body in self.bodies])

    def screen_bounds(self) -> Array:
        """Projected outlines of the screens, Mx4 xyxy pixels; one that reaches behind the camera covers
        everything."""
        bounds = [outline_bounds(self.camera, geom_points(geom)) for geom in self.screens]
        return np.array(
            [[-np.inf, -np.inf, *box[2:]] if np.isinf(box[2:]).any() else box for box in bounds]
        ).reshape(-1, 4)


def geom_points(geom: Geom) -> Array:
    """World points that bound a geom."""
    return part_points(Part(geom.shape, geom.scale)) @ geom.rotation.T + geom.position


def outline_bounds(camera: Camera, points: Array) -> Array:
    """xyxy pixels of the projected points."""
    pixels = camera.project(points)
    return np.concatenate([pixels.min(0), pixels.max(0)])


def camera_at(
    rng: np.random.Generator,
    target: Array,
    azimuth: float,
    elevation: float,
    half: float,
    span: float,
    size: tuple[int, int],
    aspect: float,
) -> Camera:
    """A slightly rolled camera that looks at `target` from `azimuth`, `elevation` above it.

    half: tangent of half its field of view; span: metres across its picture at the target; size: (width,
    height) of the picture, pixels; aspect: of the camera whose picture fills it.
    """
    width, height = size
    position, rotation = look_at(
        target, azimuth, elevation, span / (2 * half), np.deg2rad(rng.normal(0, 2.0))
    )
    fx, fy = width / (2 * half * np.sqrt(aspect)), height * np.sqrt(aspect) / (2 * half)
    return Camera(position, rotation, Intrinsics(fx, fy, width / 2, height / 2, width, height))


def look_at(
    target: Array, azimuth: float, elevation: float, distance: float, roll: float
) -> tuple[Array, Array]:
    """Position and rotation (columns right, down, forward) of a camera at `distance` from `target`, seen from
    `azimuth`."""
    back = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    down = np.cross(-back, right)
    c, s = np.cos(roll), np.sin(roll)
    return target + distance * back, np.stack([c * right + s * down, c * down - s * right, -back], 1)


def draw_labels(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Draw `count` pairs of kind and colour. Half of the scenes use few of each, so that equal objects and
    hard absent goals are frequent."""
    kinds, colours = list(KINDS), list(COLOURS)
    if rng.random() < 0.5:
        kinds = list(rng.choice(kinds, rng.integers(2, 5), replace=False))
    if rng.random() < 0.5:
        colours = list(rng.choice(colours, rng.integers(2, 5), replace=False))
    return [(str(rng.choice(kinds)), str(rng.choice(colours))) for _ in range(count)]


def _make_body(
    rng: np.random.Generator,
    label: int,
    kind: str,
    colour: str,
    solid: SolidShape,
    place: Array,
    camera: Camera,
    style: Style,
) -> Body:
    yaw = rng.uniform(0, 2 * np.pi)
    if solid.handle:  # to the left or the right of the picture, so that it never hides behind the cup
        right = camera.rotation[:, 0]
        yaw = np.arctan2(right[1], right[0]) + np.pi * rng.integers(2) + np.deg2rad(rng.uniform(-40, 40))
    turn = rotation_z(yaw)
    rgb = unusual_paint(rng, colour) if style.unusual_colours else paint(rng, colour)
    specular = rng.uniform(0.3 if colour == "black" else 0.05, 0.5)
    geoms, points = [], []
    for part in solid.parts:
        rotation = turn if part.rotation is None else turn @ part.rotation
        position = place + turn @ np.array(part.position)
        shade = part.tone or (rgb[0] * part.shade, rgb[1] * part.shade, rgb[2] * part.shade)
        geoms.append(
            Geom(part.shape, part.scale, position, rotation, shade, label, specular, rng.uniform(0.1, 0.8))
        )
        points.append(part_points(part) @ turn.T + place)
    return Body(kind, colour, solid, place, np.concatenate(points), tuple(geoms), turn)


def _hidden(box: Array, others: list[Array]) -> float:
    """Largest share of `box` that one of the other boxes covers."""
    shares = [0.0]
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
        shares.append(float(np.clip(high - low, 0, None).prod() / (box[2:] - box[:2]).prod()))
    return max(shares)


def on_plane(rng: np.random.Generator, camera: Camera, height: float = 0.0) -> Array | None:
    """The point of the plane z = height that a random pixel shows, (3,); None where it shows none."""
    k = camera.intrinsics
    pixel = rng.uniform(0.06, 0.94, 2) * [k.width, k.height]
    ray = camera.rotation @ [(pixel[0] - k.cx) / k.fx, (pixel[1] - k.cy) / k.fy, 1.0]
    if ray[2] > -0.05:
        return None
    place = camera.position - ray * ((camera.position[2] - height) / ray[2])
    return np.array([place[0], place[1], height])


def place(
    rng: np.random.Generator,
    label: int,
    kind: str,
    colour: str,
    camera: Camera,
    placed: list[Body],
    spot: Spot,
    style: Style,
    size: float = 1.0,
) -> Body | None:
    """Place an object free of others, completely in view and mostly visible; None if no place was found.

    size: factor of the world on the object, in addition to the style's.
    """
    solid = resized(make_solid(kind, rng), size * style.size)
    reach = _reach(solid)
    k = camera.intrinsics
    limit = np.array([_EDGE, _EDGE, k.width - _EDGE, k.height - _EDGE])
    bounds = [outline_bounds(camera, body.outline) for body in placed]
    for _ in range(30):
        place = spot(rng, reach)
        if place is None:
            continue
        beside = [body for body in placed if abs(body.place[2] - place[2]) < 1e-6]
        if any(np.hypot(*(body.place - place)[:2]) - body.reach - reach < _GAP for body in beside):
            continue
        body = _make_body(rng, label, kind, colour, solid, place, camera, style)
        box = outline_bounds(camera, body.outline)
        inside = (box[:2] >= limit[:2]).all() and (box[2:] <= limit[2:]).all()
        if inside and _hidden(box, bounds) < 0.45 and all(_hidden(other, [box]) < 0.45 for other in bounds):
            return body
    return None


def place_all(
    rng: np.random.Generator, count: int, camera: Camera, spot: Spot, style: Style, size: float = 1.0
) -> tuple[Body, ...] | None:
    """Place `count` random objects; None if one of them does not fit."""
    bodies: list[Body] = []
    for label, (kind, colour) in enumerate(draw_labels(rng, count)):
        body = place(rng, label, kind, colour, camera, bodies, spot, style, size)
        if body is None:
            return None
        bodies.append(body)
    return tuple(bodies)


def draw_lights(rng: np.random.Generator, front: float | None = None) -> tuple[tuple[Light, ...], Array]:
    """A main light that casts shadows, a weaker one from the other side, and the ambient rgb.

    front: azimuth, radians, of a shelf's open side, through which both shine, the weaker one brighter than
    elsewhere since boards keep the main one out; None for anywhere.
    """
    tint = 1 + rng.uniform(-0.05, 0.05) * np.array([1, 0, -1])
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(38, 75))
    if front is not None:
        azimuth = front + (azimuth - np.pi) / 3
    level = rng.uniform(0.42, 0.68)

    def ray(azimuth: float, elevation: float) -> Array:
        return np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )

    beside = azimuth + rng.uniform(2, 4.2)
    if front is not None:
        beside = front - np.sign(azimuth - front) * (0.3 + (beside - azimuth) / 4)
    main, other = ray(azimuth, elevation), ray(beside, np.deg2rad(rng.uniform(30, 70)))
    lights = (
        Light(1.5 * main, -main, level * tint, rng.uniform(0.1, 0.5), bool(rng.random() < 0.85)),
        Light(
            1.5 * other, -other, np.full(3, rng.uniform(0.08, 0.28) + (0.0 if front is None else 0.2)), 0.1
        ),
    )
    return lights, rng.uniform(0.34, 0.5) * tint


def unlike(rng: np.random.Generator, rgbs: list[Array]) -> tuple[float, float, float]:
    """Draw a muted colour far from those of the objects."""
    wanted = 0.0 if rng.random() < 0.04 else 0.3
    colour = muted(rng)
    for _ in range(20):
        if contrast(colour, rgbs) > wanted:
            break
        colour = muted(rng)
    return float(colour[0]), float(colour[1]), float(colour[2])


def draw_texture(rng: np.random.Generator) -> int:
    """A texture's index, or -1 for none."""
    return int(rng.integers(-1, len(TEXTURES)))


def colours_of(bodies: tuple[Body, ...]) -> list[Array]:
    """The rgb of every body."""
    return [np.array(body.geoms[0].rgb) for body in bodies]


def seen_from(layout: Layout, camera: Camera) -> Layout:
    """The same scene through another camera."""
    return replace(layout, camera=camera)
