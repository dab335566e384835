"""Surroundings of the world `wide`: grounds, trays, cables, robot hands, lights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.colours import muted
from groma_ros.simulation.drawing import TEXTURES, Camera, Geom, Light
from groma_ros.simulation.layout import unlike
from groma_ros.simulation.shapes import Array, rotation_z

_LAID = np.array([[0, 0, 1.0], [0, 1.0, 0], [-1.0, 0, 0]])  # z along x


def draw_any_lights(rng: np.random.Generator) -> tuple[tuple[Light, ...], Array]:
    """One to three lights from any side, soft to hard, slightly coloured."""
    tint = 1 + rng.uniform(-0.14, 0.14) * np.array([1, 0.1, -1]) + rng.uniform(-0.03, 0.03, 3)
    ambient = rng.uniform(0.2, 0.55)
    level = float(np.clip(rng.uniform(0.85, 1.15) - ambient, 0.25, 0.9))

    def light(strength: float, shadow: bool) -> Light:
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(18, 88))
        ray = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        return Light(1.5 * ray, -ray, strength * tint, rng.uniform(0.05, 0.7), shadow)

    lights = [light(level, bool(rng.random() < 0.75))]
    for _ in range(int(rng.integers(0, 3))):
        lights.append(light(rng.uniform(0.05, 0.3), False))
    if lights[0].shadow and len(lights) == 1:  # the ambient part rides on a light without shadows
        lights.append(light(0.03, False))
    return tuple(lights), ambient * tint


def draw_ground(rng: np.random.Generator, rgbs: list[Array], span: float) -> list[Geom]:
    """A table top, a floor or a bench of any pattern, at times with seams."""
    rgb, texture, tile = (
        unlike(rng, rgbs),
        int(rng.integers(-1, len(TEXTURES))),
        float(rng.uniform(0.5, 5) / max(span, 0.3)),
    )
    half = rng.uniform(0.55, 1.6, 2) * max(span, 0.5)
    turn = rotation_z(rng.uniform(0, np.pi))
    geoms = [
        Geom(
            "box",
            (half[0], half[1], 0.02),
            np.array([0, 0, -0.02]),
            turn,
            rgb,
            -1,
            rng.uniform(0, 0.5),
            0.4,
            texture,
            tile,
        )
    ]
    if rng.random() < 0.3:  # seams of planks or tiles, or tape
        tone = unlike(rng, rgbs)
        gap, width = rng.uniform(0.12, 0.35) * max(span, 0.4), rng.uniform(0.001, 0.006) * max(span, 0.5)
        for row in range(-3, 4):
            place = turn @ np.array([row * gap, 0, 0.0003])
            geoms.append(Geom("box", (width, half[1], 0.0003), place, turn, tone))
            if rng.random() < 0.5:
                place = turn @ np.array([0, row * gap, 0.0003])
                geoms.append(Geom("box", (half[0], width, 0.0003), place, turn, tone))
    return geoms


def draw_tray(rng: np.random.Generator, span: float) -> tuple[list[Geom], list[NDArray[Any]], Array]:
    """Draw a tray with four sides, or none: its geoms, the footprints of its sides, and its middle."""
    half = rng.uniform(0.14, 0.3, 2) * span
    height, thick = rng.uniform(0.02, 0.09) * min(span, 1.2), 0.004 + 0.006 * span
    middle = np.array([*rng.uniform(-0.1, 0.1, 2), 0.0]) * span
    turn = rotation_z(rng.uniform(0, np.pi))
    colour = muted(rng)
    rgb = (float(colour[0]), float(colour[1]), float(colour[2]))
    geoms, feet = [], []
    for axis in (0, 1):
        for side in (-1, 1):
            size = (thick, half[1], height / 2) if axis == 0 else (half[0], thick, height / 2)
            local = (
                np.array([side * half[0], 0, height / 2])
                if axis == 0
                else np.array([0, side * half[1], height / 2])
            )
            geoms.append(Geom("box", size, middle + turn @ local, turn, rgb, -1, rng.uniform(0, 0.4)))
            corners = np.array(
                [[x * size[0], y * size[1], 0] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            )
            feet.append(np.asarray((corners + local) @ turn.T + middle, np.float32)[:, :2])
    floor = Geom(
        "box",
        (half[0], half[1], 0.003 * span),
        middle + [0, 0, 0.003 * span],
        turn,
        (0.9 * rgb[0], 0.9 * rgb[1], 0.9 * rgb[2]),
    )
    return [*geoms, floor], feet, middle


def thick_mats(geoms: tuple[Geom, ...], span: float) -> list[Geom]:
    """Mats thick enough to be told from the ground by a camera that is farther away."""
    thick = max(1.0, 4 * span)
    return [
        replace(g, position=g.position * [1, 1, thick], scale=(g.scale[0], g.scale[1], g.scale[2] * thick))
        for g in geoms
    ]


def draw_cables(rng: np.random.Generator, span: float) -> list[Geom]:
    """Draw dark or light cables on the ground, or none."""
    geoms = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.8, 0.12, 0.08]))):
        level = float(rng.choice([0.1, 0.25, 0.6, 0.85]))
        at, way = rng.uniform(-0.4, 0.4, 2) * span, rng.uniform(0, 2 * np.pi)
        for _ in range(5):
            length = rng.uniform(0.06, 0.14) * span
            step = np.array([np.cos(way), np.sin(way)]) * length
            middle = np.array([*(at + step / 2), 0.003 * span])
            along = np.array([np.cos(way), np.sin(way), 0.0])
            side = np.array([-np.sin(way), np.cos(way), 0.0])
            turn = np.stack([side, np.array([0, 0, 1.0]), along], 1)
            geoms.append(
                Geom("capsule", (0.003 * span, length / 2, 0), middle, turn, (level, level, level), -1, 0.2)
            )
            at, way = at + step, way + rng.normal(0, 0.5)
    return geoms


def draw_hand(rng: np.random.Generator, camera: Camera, span: float) -> tuple[Geom, ...]:
    """A robot's hand with four fingers and a thumb that hangs over the ground from a side, grey to dark."""
    azimuth = rng.uniform(0, 2 * np.pi)
    out = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    scale = span * rng.uniform(0.5, 0.8)
    palm = out * rng.uniform(0.35, 0.5) * span + [0, 0, rng.uniform(0.15, 0.3) * span]
    level, dark = rng.uniform(0.2, 0.9), rng.uniform(0.08, 0.35)
    turn = rotation_z(azimuth)
    rgb, joint = (level,) * 3, (dark,) * 3
    geoms = [Geom("box", (0.09 * scale, 0.07 * scale, 0.025 * scale), palm, turn, rgb, -1, 0.4)]
    geoms.append(
        Geom(
            "capsule", (0.045 * scale, 0.25 * scale, 0), palm + out * 0.3 * scale, turn @ _LAID, rgb, -1, 0.4
        )
    )
    for finger in range(4):
        start = palm + turn @ np.array([-0.1, -0.055 + 0.037 * finger, -0.02]) * scale
        for length, drop in ((0.05, 0.5), (0.04, 1.1)):
            way = turn @ np.array([-np.cos(drop), 0, -np.sin(drop)])
            side = turn @ np.array([0, 1.0, 0])
            frame = np.stack([side, np.cross(way, side), way], 1)
            geoms.append(
                Geom(
                    "capsule",
                    (0.014 * scale, length / 2 * scale, 0),
                    start + way * length / 2 * scale,
                    frame,
                    joint,
                    -1,
                    0.3,
                )
            )
            start = start + way * length * scale
    return tuple(geoms)


def tinted(rng: np.random.Generator, geoms: tuple[Geom, ...]) -> tuple[Geom, ...]:
    """Paint a robot arm grey or, like those of some makers, partly in a colour."""
    if rng.random() < 0.5:
        return geoms
    tone = muted(rng)
    rgb = (float(tone[0]), float(tone[1]), float(tone[2]))
    return tuple(replace(geom, rgb=rgb) if rng.random() < 0.5 else geom for geom in geoms)
