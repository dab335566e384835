"""Objects of the world `wide`. Every kind is a family of shapes, with lids, labels, handles and stripes.

Metres, z up, the base at z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.colours import wide_paint
from groma_ros.simulation.shapes import KINDS, Part, SolidShape, part_points, rotation_y, rotation_z

FAMILY_KINDS = (*KINDS, "can", "carton", "lemon")
LEMON_COLOURS = ("yellow", "green", "orange")
_Tone = tuple[float, float, float]


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _metal(rng: np.random.Generator) -> _Tone:
    level = rng.uniform(0.55, 0.8)
    return level, level, level * rng.uniform(0.95, 1.05)


def _accent(rng: np.random.Generator) -> _Tone:
    """White, black, cream or a muted colour, of labels and caps."""
    draw = rng.random()
    if draw < 0.45:
        level = rng.uniform(0.85, 1.0)
        return level, level, level
    if draw < 0.65:
        level = rng.uniform(0.05, 0.2)
        return level, level, level
    return wide_paint(rng, _choose(rng, ("grey", "brown", "white")))


def _box(rng: np.random.Generator) -> SolidShape:
    form = _choose(rng, ("any", "cube", "flat", "long"))
    w, d, h = rng.uniform(0.045, 0.13, 3)
    if form == "cube":
        w = d = h = rng.uniform(0.045, 0.1)
    elif form == "flat":
        h = rng.uniform(0.02, 0.04)
    elif form == "long":
        w, h = rng.uniform(0.12, 0.18), rng.uniform(0.03, 0.07)
    parts = [Part("box", (w / 2, d / 2, h / 2), (0, 0, h / 2))]
    draw = rng.random()
    if draw < 0.12:  # a strip of tape over the top
        parts.append(Part("box", (w / 2 + 0.0008, 0.012, h / 2 + 0.0008), (0, 0, h / 2), tone=_accent(rng)))
    elif draw < 0.24:  # a lid a little wider than the box
        parts.append(
            Part(
                "box",
                (w / 2 + 0.002, d / 2 + 0.002, 0.12 * h),
                (0, 0, 0.89 * h),
                shade=rng.uniform(0.75, 1.1),
            )
        )
    return SolidShape(tuple(parts), (w, h, d))


def _ball(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.025, 0.06)
    parts = [Part("ball", (r, r, r), (0, 0, r))]
    if rng.random() < 0.15:
        parts.append(Part("cylinder", (r * 1.004, r * 0.09, 0), (0, 0, r), tone=_accent(rng)))
    return SolidShape(tuple(parts), (2 * r,) * 3)


def _cylinder(rng: np.random.Generator) -> SolidShape:
    form = _choose(rng, ("usual", "usual", "disc", "tall"))
    r, h = rng.uniform(0.024, 0.05), rng.uniform(0.05, 0.13)
    if form == "disc":
        r, h = rng.uniform(0.035, 0.06), rng.uniform(0.02, 0.045)
    elif form == "tall":
        r, h = rng.uniform(0.02, 0.03), rng.uniform(0.1, 0.16)
    parts = [Part("cylinder", (r, h / 2, 0), (0, 0, h / 2))]
    if rng.random() < 0.12:
        parts.append(
            Part(
                "cylinder",
                (r * 1.01, h * rng.uniform(0.04, 0.12), 0),
                (0, 0, h * rng.uniform(0.25, 0.75)),
                tone=_accent(rng),
            )
        )
    return SolidShape(tuple(parts), (2 * r, h, 2 * r))


def _capsule(rng: np.random.Generator) -> SolidShape:
    """Draw an upright capsule, sometimes of two halves; `draw_pose` may lay it down."""
    r = rng.uniform(0.016, 0.034)
    length = r * rng.uniform(3.4, 6.5)
    parts = [Part("capsule", (r, length / 2 - r, 0), (0, 0, length / 2))]
    if rng.random() < 0.2:
        parts.append(
            Part(
                "capsule", (r * 1.01, length / 4 - r / 2, 0), (0, 0, 0.75 * length - r / 2), tone=_accent(rng)
            )
        )
    return SolidShape(tuple(parts), (2 * r, length, 2 * r))


def _mug(rng: np.random.Generator) -> SolidShape:
    cup = _choose(rng, ("cup", "cup tapered", "cup flared", "cup barrel", "cup straight"))
    r = rng.uniform(0.03, 0.046)
    h = r * rng.uniform(1.6, 2.8)
    parts = [Part(cup, (r, r, h))]
    if rng.random() < 0.15:
        parts.append(
            Part("cylinder", (r * 1.012, h * 0.08, 0), (0, 0, h * rng.uniform(0.35, 0.6)), tone=_accent(rng))
        )
    arc = h * rng.uniform(0.24, 0.36)
    out = r * {"cup tapered": 0.92, "cup flared": 0.82}.get(cup, 1.03)
    if rng.random() < 0.75:
        parts.append(Part("handle", (arc, arc * rng.uniform(0.8, 1.4), arc), (out, 0, h * 0.52)))
    else:  # of straight bars
        thick, reach = 0.13 * arc + 0.002, arc * 0.95
        for z in (h * 0.52 - arc * 0.75, h * 0.52 + arc * 0.75):
            parts.append(
                Part("box", (reach / 2 + thick, thick * 1.3, thick), (out + reach / 2 - thick, 0, z))
            )
        parts.append(Part("box", (thick, thick * 1.3, arc * 0.75 + thick), (out + reach, 0, h * 0.52)))
    return SolidShape(tuple(parts), (2 * r + 1.2 * arc, h, 2 * r), handle=True)


def _bowl(rng: np.random.Generator) -> SolidShape:
    bowl = _choose(rng, ("bowl", "bowl deep", "bowl dish", "bowl footed"))
    r = rng.uniform(0.045, 0.085)
    h = r * (rng.uniform(0.35, 0.5) if bowl == "bowl dish" else rng.uniform(0.55, 0.95))
    return SolidShape((Part(bowl, (r, r, h)),), (2 * r, h, 2 * r))


def _bottle(rng: np.random.Generator) -> SolidShape:
    bottle = _choose(rng, ("bottle", "bottle shoulder", "bottle slender", "bottle stout", "bottle spray"))
    r = rng.uniform(0.024, 0.04)
    h = r * (rng.uniform(2.8, 4.0) if bottle == "bottle stout" else rng.uniform(3.8, 5.6))
    parts = [Part(bottle, (r, r, h))]
    if rng.random() < 0.45:
        neck = {"bottle": 0.46, "bottle stout": 0.55}.get(bottle, 0.37)
        parts.append(Part("cylinder", (r * neck * 1.08, h * 0.05, 0), (0, 0, h * 0.965), tone=_accent(rng)))
    if rng.random() < 0.3:
        width = 0.985 if bottle == "bottle spray" else 1.0
        parts.append(
            Part(
                "cylinder",
                (r * width * 1.015, h * rng.uniform(0.06, 0.12), 0),
                (0, 0, h * 0.24),
                tone=_accent(rng),
            )
        )
    return SolidShape(tuple(parts), (2 * r, h, 2 * r))


def _cone(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.03, 0.056)
    h = r * rng.uniform(1.6, 3.2)
    cone = _choose(rng, ("cone", "cone", "cone blunt"))
    parts = [Part(cone, (r, r, h))]
    width = 2 * r
    if rng.random() < 0.3:  # a traffic cone's foot
        foot = r * rng.uniform(1.15, 1.35)
        parts = [
            Part(cone, (r, r, h), (0, 0, 0.05 * h)),
            Part("box", (foot, foot, 0.04 * h), (0, 0, 0.04 * h), shade=rng.uniform(0.6, 1.0)),
        ]
        width, h = 2 * foot, 1.05 * h
    return SolidShape(tuple(parts), (width, h, width))


def _ring(rng: np.random.Generator) -> SolidShape:
    ring = _choose(rng, ("ring", "ring thin", "ring thick"))
    thick = {"ring": 0.27, "ring thin": 0.13, "ring thick": 0.4}[ring]
    r = rng.uniform(0.034, 0.062)
    return SolidShape((Part(ring, (r, r, r)),), (2 * (1 + thick) * r, 2 * thick * r, 2 * (1 + thick) * r))


def _can(rng: np.random.Generator) -> SolidShape:
    """A drink's can: tapered to metal rims at both ends."""
    r = rng.uniform(0.027, 0.038)
    h = r * rng.uniform(2.8, 3.9)
    metal = _metal(rng)
    parts = [Part("tin", (r, r, h)), Part("cylinder", (r * 0.88, h * 0.012, 0), (0, 0, h), tone=metal)]
    parts.append(Part("cylinder", (r * 0.92, h * 0.03, 0), (0, 0, h * 0.028), tone=metal))
    if rng.random() < 0.5:
        parts.append(
            Part(
                "cylinder",
                (r * 1.01, h * rng.uniform(0.05, 0.12), 0),
                (0, 0, h * rng.uniform(0.35, 0.65)),
                tone=_accent(rng),
            )
        )
    return SolidShape(tuple(parts), (2 * r, h * 1.012, 2 * r))


def _carton(rng: np.random.Generator) -> SolidShape:
    """A milk carton with a gable."""
    w = rng.uniform(0.045, 0.075)
    h = w * rng.uniform(1.3, 2.1)
    roof = w * rng.uniform(0.35, 0.5)
    parts = [
        Part("box", (w / 2, w / 2, h / 2), (0, 0, h / 2)),
        Part("gable", (w / 2, w / 2, roof), (0, 0, h), shade=rng.uniform(0.85, 1.05)),
    ]
    parts.append(
        Part(
            "box",
            (w / 2, 0.003, w * 0.07),
            (0, 0, h + roof),
            tone=_accent(rng) if rng.random() < 0.5 else None,
        )
    )
    if rng.random() < 0.6:
        band = h * rng.uniform(0.08, 0.16)
        parts.append(
            Part(
                "box",
                (w / 2 + 0.0008, w / 2 + 0.0008, band),
                (0, 0, h * rng.uniform(0.3, 0.7)),
                tone=_accent(rng),
            )
        )
    return SolidShape(tuple(parts), (w, h + roof + w * 0.07, w))


def _lemon(rng: np.random.Generator) -> SolidShape:
    r = rng.uniform(0.026, 0.036)
    length = r * rng.uniform(2.5, 3.1)
    return SolidShape((Part("lemon", (r / 0.8, r / 0.8, length)),), (2 * r, length, 2 * r))


_MAKERS: dict[str, Callable[[np.random.Generator], SolidShape]] = {
    "box": _box, "ball": _ball, "cylinder": _cylinder, "capsule": _capsule, "mug": _mug, "bowl": _bowl,
    "bottle": _bottle, "cone": _cone, "ring": _ring, "can": _can, "carton": _carton, "lemon": _lemon,
}  # fmt: skip
_TILT_CHANCE = 0.1
# Share of draws that lie on their side, and of those that are upside down; the rest stand or are tilted.
_LYING = {
    "cylinder": 0.3,
    "capsule": 0.5,
    "bottle": 0.3,
    "can": 0.25,
    "carton": 0.15,
    "mug": 0.12,
    "cone": 0.12,
    "lemon": 1.0,
    "box": 0.15,
}
_UPTURNED = {"mug": 0.08, "bowl": 0.12}
STACKABLE = ("box", "cylinder", "can")
"""Kinds whose top may carry something while they stand."""


def make_member(kind: str, rng: np.random.Generator) -> SolidShape:
    """Draw a member of the family of a kind of `FAMILY_KINDS`; KeyError otherwise."""
    return _MAKERS[kind](rng)


def draw_pose(kind: str, rng: np.random.Generator) -> tuple[str, NDArray[Any]]:
    """Draw a pose: "standing", "lying", "upturned" or "tilted", and the 3x3 rotation of the object's axes."""
    draw = rng.random()
    lying, upturned = _LYING.get(kind, 0.0), _UPTURNED.get(kind, 0.0)
    turn = rotation_z(rng.uniform(0, 2 * np.pi))
    spin = rotation_z(rng.uniform(0, 2 * np.pi))
    if draw < lying:
        if kind in ("box", "carton"):  # on one of its faces
            spin = rotation_z(int(rng.integers(4)) * np.pi / 2)
        slope = np.arctan2(0.6, 4.0) if kind == "cone" else 0.0
        return "lying", turn @ rotation_y(np.pi / 2 + slope) @ spin
    if draw < lying + upturned:
        return "upturned", turn @ rotation_y(np.pi)
    if draw < lying + upturned + _TILT_CHANCE and kind not in ("ball", "lemon"):
        return "tilted", turn @ rotation_y(np.deg2rad(rng.uniform(8, 40))) @ spin
    return "standing", turn


def outline(solid: SolidShape) -> NDArray[Any]:
    """Points that bound a solid, Px3 in its own frame."""
    return np.concatenate([part_points(part) for part in solid.parts])
