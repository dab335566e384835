"""Kinds of objects as solids of several parts at physical size. Metres, z up, the base at z = 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("box", "ball", "cylinder", "capsule", "mug", "bowl", "bottle", "cone", "ring")
SEGMENTS = 28


@dataclass(frozen=True)
class Mesh:
    """A closed triangle mesh."""

    vertices: Array
    """float64 Vx3."""
    faces: NDArray[np.int64]
    """int Fx3, counter-clockwise seen from outside."""


@dataclass(frozen=True, eq=False)
class Part:
    """A solid of an object, in the object's frame."""

    shape: str
    """ "box", "ball", "cylinder", "capsule" or a name in `MESHES`."""
    scale: tuple[float, float, float]
    """Half sizes, radius, or radius and half length along z; factors on the vertices of a mesh."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Its origin."""
    rotation: Array | None = None
    """3x3."""
    shade: float = 1.0
    """Factor on the object's colour."""
    tone: tuple[float, float, float] | None = None
    """RGB that replaces the object's colour, such as a lid's."""


@dataclass(frozen=True, eq=False)
class SolidShape:
    """A kind of object at a physical size."""

    parts: tuple[Part, ...]
    size: tuple[float, float, float]
    """(width, height, depth) along its own x, z and y, metres."""
    handle: bool = False
    """Whether its x axis points to a handle."""


def resized(solid: SolidShape, factor: float) -> SolidShape:
    """The solid `factor` times as large."""
    if factor == 1:
        return solid
    parts = tuple(
        replace(part, scale=_times(part.scale, factor), position=_times(part.position, factor))
        for part in solid.parts
    )
    return replace(solid, parts=parts, size=_times(solid.size, factor))


def _times(values: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return values[0] * factor, values[1] * factor, values[2] * factor


def rotation_z(angle: float) -> Array:
    """3x3 rotation about z by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_y(angle: float) -> Array:
    """3x3 rotation about y by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])


def lathe(profile: list[tuple[float, float]]) -> Mesh:
    """Turn a profile of (radius, z) about z; it runs so that the outside lies to its right, and repeats a
    point at a crease."""
    angles = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    vertices = np.concatenate(
        [np.column_stack([radius * ring, np.full(SEGMENTS, z)]) for radius, z in profile]
    )
    faces = []
    for row in range(len(profile) - 1):
        if profile[row] == profile[row + 1]:
            continue
        for i in range(SEGMENTS):
            j = (i + 1) % SEGMENTS
            a, b, c, d = (
                row * SEGMENTS + i,
                row * SEGMENTS + j,
                (row + 1) * SEGMENTS + j,
                (row + 1) * SEGMENTS + i,
            )
            if profile[row][0] > 1e-6:
                faces.append((a, b, c))
            if profile[row + 1][0] > 1e-6:
                faces.append((a, c, d))
    return Mesh(vertices, np.array(faces, np.int64))


def tube(radius: float, thickness: float, start: float, stop: float, steps: int, sides: int = 12) -> Mesh:
    """A round tube bent about y: the arc of `radius` in the x-z plane from angle `start` to `stop`; closed
    for a full turn."""
    full = abs(stop - start - 2 * np.pi) < 1e-9
    arc = np.linspace(start, stop, steps, endpoint=not full)
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    r = radius + thickness * np.cos(around)[None]
    x, z = r * np.cos(arc)[:, None], r * np.sin(arc)[:, None]
    y = np.broadcast_to(-thickness * np.sin(around)[None], x.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    faces = []
    for i in range(steps if full else steps - 1):
        for j in range(sides):
            a, b = i * sides + j, i * sides + (j + 1) % sides
            c, d = ((i + 1) % steps) * sides + (j + 1) % sides, ((i + 1) % steps) * sides + j
            faces += [(a, c, b), (a, d, c)]
    return Mesh(vertices, np.array(faces, np.int64))


def _flat_ring() -> Mesh:
    upright = tube(1.0, 0.27, 0, 2 * np.pi, SEGMENTS)
    turn = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # turn the hole's axis from y to z
    return Mesh(upright.vertices @ turn.T + [0, 0, 0.27], upright.faces)


def _meshes() -> dict[str, Mesh]:
    """Unit radius and unit height; the ring has unit mean radius, the handle unit arc radius."""
    cup_inside = [(0.86, 1), (0.84, 0.12), (0.84, 0.12), (0, 0.1)]
    cup = [(0, 0), (0.9, 0), (0.9, 0), (0.98, 0.06), (1, 0.15), (1, 1), (1, 1), (0.86, 1), *cup_inside]
    outside = [(0.42, 0.0), (0.46, 0.1), (0.66, 0.25), (0.84, 0.5), (0.95, 0.78), (1.0, 1.0)]
    inside = [(0.92, 1.0), (0.87, 0.8), (0.76, 0.52), (0.58, 0.3), (0.36, 0.17), (0, 0.14)]
    bowl = [(0, 0), (0.42, 0), *outside, (1.0, 1.0), (0.92, 1.0), *inside]
    neck = [
        (0.9, 0.0),
        (1, 0.04),
        (1, 0.52),
        (0.94, 0.6),
        (0.74, 0.67),
        (0.46, 0.73),
        (0.36, 0.78),
        (0.36, 0.93),
    ]
    bottle = [(0, 0), (0.9, 0), *neck, (0.36, 0.93), (0.46, 0.93), (0.46, 0.93), (0.46, 1), (0.46, 1), (0, 1)]
    return {
        "cup": lathe(cup),
        "bowl": lathe(bowl),
        "bottle": lathe(bottle),
        "cone": lathe([(0, 0), (1, 0), (1, 0), (0.03, 0.985), (0, 1)]),
        "ring": _flat_ring(),
        "handle": tube(1.0, 0.24, -0.62 * np.pi, 0.62 * np.pi, 16),
        **_family_meshes(),
    }


def _hollow(outside: list[tuple[float, float]], wall: float = 0.13, floor: float = 0.1) -> Mesh:
    """Make a cup from the outer profile, foot to rim; the inner one follows at the thickness of the wall."""
    rim = outside[-1]
    inside = [(r - wall, z) for r, z in reversed(outside) if z > floor + 0.05]
    low = max(outside[0][0] - wall, 0.1)
    return lathe([(0, 0), outside[0], *outside, rim, *inside, (low, floor), (low, floor), (0, floor)])


def _closed(outside: list[tuple[float, float]]) -> Mesh:
    """A solid of revolution, closed at bottom and top."""
    return lathe([(0, outside[0][1]), outside[0], *outside, outside[-1], (0, outside[-1][1])])


def _gable() -> Mesh:
    """A roof over the square from -1 to 1, its ridge along x at height 1."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, 0, 1.0], [1, 0, 1.0]])
    faces = [(0, 2, 1), (0, 3, 2), (0, 1, 5), (0, 5, 4), (2, 3, 4), (2, 4, 5), (0, 4, 3), (1, 2, 5)]
    return Mesh(vertices, np.array(faces, np.int64))


def _family_meshes() -> dict[str, Mesh]:
    """Meshes of the objects of `families`, of unit radius and unit height."""
    upright = [
        (a, z) for a, z in zip(np.cos(np.linspace(-1.3, 1.3, 9)), np.linspace(0.0, 1.0, 9), strict=True)
    ]
    barrel = [(0.78 + 0.22 * float(a), float(z)) for a, z in upright]
    shoulder = [
        (0.95, 0.0),
        (1, 0.03),
        (1, 0.62),
        (0.9, 0.7),
        (0.6, 0.76),
        (0.34, 0.79),
        (0.3, 0.8),
        (0.3, 0.96),
        (0.36, 0.96),
        (0.36, 1),
    ]
    slender = [
        (0.85, 0.0),
        (1, 0.05),
        (1, 0.4),
        (0.8, 0.58),
        (0.5, 0.72),
        (0.34, 0.84),
        (0.3, 0.97),
        (0.38, 0.97),
        (0.38, 1),
    ]
    stout = [(0.9, 0.0), (1, 0.04), (1, 0.7), (0.93, 0.8), (0.7, 0.86), (0.55, 0.88), (0.55, 1)]
    spray = [
        (0.9, 0.0),
        (1, 0.04),
        (0.97, 0.45),
        (0.8, 0.55),
        (0.95, 0.66),
        (0.7, 0.78),
        (0.35, 0.84),
        (0.35, 1),
    ]
    deep = [(0.5, 0.0), (0.62, 0.12), (0.8, 0.35), (0.92, 0.65), (1.0, 1.0)]
    dish = [(0.6, 0.0), (0.75, 0.15), (0.9, 0.5), (1.0, 1.0)]
    footed = [(0.5, 0.0), (0.5, 0.12), (0.4, 0.2), (0.75, 0.42), (0.93, 0.7), (1.0, 1.0)]
    tin = [(0.9, 0.0), (1, 0.05), (1, 0.9), (0.88, 0.97), (0.88, 1)]
    angles = np.linspace(-np.pi / 2, np.pi / 2, 11)
    lemon = [(float(abs(np.cos(a)) ** 0.8) * 0.8, 0.5 + 0.42 * float(np.sin(a))) for a in angles[1:-1]]
    flat_to_z = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])

    def hoop(thickness: float) -> Mesh:
        upright_ring = tube(1.0, thickness, 0, 2 * np.pi, SEGMENTS)
        return Mesh(upright_ring.vertices @ flat_to_z.T + [0, 0, thickness], upright_ring.faces)

    return {
        "cup tapered": _hollow([(0.72, 0.0), (0.78, 0.1), (1.0, 1.0)]),
        "cup flared": _hollow([(0.7, 0.0), (0.74, 0.3), (0.82, 0.7), (1.0, 1.0)]),
        "cup barrel": _hollow([(float(r), float(z)) for r, z in barrel]),
        "cup straight": _hollow([(0.97, 0.0), (1.0, 0.03), (1.0, 1.0)], 0.08),
        "bowl deep": _hollow(deep, 0.08, 0.12),
        "bowl dish": _hollow(dish, 0.07, 0.18),
        "bowl footed": _hollow(footed, 0.08, 0.28),
        "bottle shoulder": _closed(shoulder),
        "bottle slender": _closed(slender),
        "bottle stout": _closed(stout),
        "bottle spray": _closed(spray),
        "tin": _closed(tin),
        "lemon": lathe([(0, 0), (0.1, 0.02), (0.16, 0.07), *lemon, (0.16, 0.93), (0.1, 0.98), (0, 1)]),
        "cone blunt": _closed([(1, 0), (0.12, 1)]),
        "gable": _gable(),
        "ring thin": hoop(0.13),
        "ring thick": hoop(0.4),
    }


MESHES = _meshes()


def _unit_points() -> dict[str, Array]:
    """Points that bound each shape at unit scale, for projected outlines before anything is drawn."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(16)])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1.0, 1)])
    high, low = circle + np.array([0, 0, 1]), circle - np.array([0, 0, 1])
    ball = np.concatenate(
        [circle * [c, c, 1] + [0, 0, s] for c, s in ((1, 0), (0.7, 0.7), (0.7, -0.7), (0, 1), (0, -1))]
    )
    points = {"box": corners, "ball": ball, "cylinder": np.concatenate([high, low]), "capsule": ball}
    return points | {name: mesh.vertices for name, mesh in MESHES.items()}


UNIT_POINTS = _unit_points()


def part_points(part: Part) -> Array:
    """Outline points of a part, Px3 in the object's frame."""
    if part.shape == "capsule":
        radius, half, _ = part.scale
        unit = UNIT_POINTS["ball"]
        local = unit * radius + np.sign(unit[:, 2:]) * [0, 0, half]
    elif part.shape == "cylinder":
        local = UNIT_POINTS["cylinder"] * [part.scale[0], part.scale[0], part.scale[1]]
    else:
        local = UNIT_POINTS[part.shape] * (part.scale if part.shape != "ball" else (part.scale[0],) * 3)
    if part.rotation is not None:
        local = local @ part.rotation.T
    points: Array = local + part.position
    return points


def _box(rng: np.random.Generator) -> SolidShape:
    w, d = rng.uniform(0.06, 0.12, 2)
    h = rng.uniform(0.045, 0.115)
    return SolidShape((Part("box", (w / 2, d / 2, h / 2), (0, 0, h / 2)),), (w, h, d))


def _ball(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.032, 0.055)
    return SolidShape((Part("ball", (r, r, r), (0, 0, r)),), (2 * r,) * 3)


def _cylinder(rng: np.random.Generator) -> SolidShape:
    r, h = rng.uniform(0.03, 0.046), rng.uniform(0.065, 0.12)
    return SolidShape((Part("cylinder", (r, h / 2, 0), (0, 0, h / 2)),), (2 * r, h, 2 * r))


def _capsule(rng: np.random.Generator) -> SolidShape:
    r, length = rng.uniform(0.023, 0.032), rng.uniform(0.115, 0.15)
    part = Part("capsule", (r, length / 2 - r, 0), (0, 0, r), rotation_y(np.pi / 2))
    return SolidShape((part,), (length, 2 * r, 2 * r))


def _mug(rng: np.random.Generator) -> SolidShape:
    r, h = rng.uniform(0.034, 0.043), rng.uniform(0.075, 0.1)
    arc = h * rng.uniform(0.3, 0.36)
    parts = (Part("cup", (r, r, h)), Part("handle", (arc, arc * 1.1, arc), (r * 1.05, 0, h * 0.5)))
    return SolidShape(parts, (2 * r + 1.2 * arc, h, 2 * r), handle=True)


def _bowl(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.055, 0.075)
    h = r * rng.uniform(0.6, 0.75)
    return SolidShape((Part("bowl", (r, r, h)),), (2 * r, h, 2 * r))


def _bottle(rng: np.random.Generator) -> SolidShape:
    r, h = rng.uniform(0.027, 0.035), rng.uniform(0.13, 0.165)
    return SolidShape((Part("bottle", (r, r, h)),), (2 * r, h, 2 * r))


def _cone(rng: np.random.Generator) -> SolidShape:
    r, h = rng.uniform(0.036, 0.052), rng.uniform(0.09, 0.13)
    return SolidShape((Part("cone", (r, r, h)),), (2 * r, h, 2 * r))


def _ring(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.04, 0.056)
    return SolidShape((Part("ring", (r, r, r)),), (2.54 * r, 0.54 * r, 2.54 * r))


_MAKERS = {
    "box": _box,
    "ball": _ball,
    "cylinder": _cylinder,
    "capsule": _capsule,
    "mug": _mug,
    "bowl": _bowl,
    "bottle": _bottle,
    "cone": _cone,
    "ring": _ring,
}


def make_solid(kind: str, rng: np.random.Generator) -> SolidShape:
    """Draw the proportions and size of an object of `kind` (one of `KINDS`; KeyError otherwise)."""
    return _MAKERS[kind](rng)
