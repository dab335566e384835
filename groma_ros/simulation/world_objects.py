"""Kinds of objects in the worlds of other simulators, their names, and unambiguous goals about them.

An object keeps its original look, or is painted in one colour of `colours.COLOURS`. An original look has
several colours, or none that everybody would agree on, so goals about such a scene never use a colour that
might describe it.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import quaternion_from_matrix
from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.goal_generator import SceneGoal, draw_goals
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.simulation.vocabulary import plural
from groma_ros.types import Box3D

Array = NDArray[np.float64]

OWN = "own"
"""The finish of an object with its original look."""
HELD_OUT_ONE_IN = 5
"""One in this many textures, painted kinds and data seeds is held out of training."""
SEED_STRIDE = 1_000_000  # scene seeds of one data seed, as in `dataset`
MIN_AREA = 0.0008  # share of the picture that an object covers at least
MIN_VISIBLE = 0.55
_MIXED = "mixed"  # colour of an object without a single colour; never part of a goal's text
_ABSENT_ELSEWHERE = 0.5


@dataclass(frozen=True)
class WorldKind:
    """A kind of object."""

    name: str
    also: tuple[str, ...] = ()
    """Names of other kinds that fit it too; no goal may use them while it is in the picture."""
    own_colour: str = ""
    """Colour of its original look if that is unambiguous, else ""."""
    could_be: tuple[str, ...] = ()
    """Colours that its original look might be called."""


ROBOSUITE_KINDS = (
    WorldKind("can", ("cylinder",), "red", ("white",)),
    WorldKind("carton", ("box", "bottle"), "white"),
    WorldKind("cereal box", ("box", "carton"), "", ("red", "orange", "yellow", "brown")),
    WorldKind("loaf", ("box",), "", ("orange", "brown", "red", "yellow")),
    WorldKind("lemon", ("ball", "fruit"), "", ("yellow", "orange")),
    WorldKind("bottle", (), "green"),
    WorldKind("pot", ("box", "bowl")),
    WorldKind("hammer"),
    WorldKind("box"),
    WorldKind("ball"),
    WorldKind("cylinder", ("can", "barrel")),
)
MINIWORLD_KINDS = (
    WorldKind("chair", (), "", ("red", "black", "purple", "brown", "pink", "grey")),
    WorldKind("desk", ("table", "box"), "", ("black", "brown", "yellow", "green", "orange", "grey")),
    WorldKind("barrel", ("cylinder", "can"), "blue", ("cyan",)),
    WorldKind("barrier", ("wall",), "", ("white", "grey")),
    WorldKind("cone", (), "orange", ("white", "red", "black")),
    WorldKind("door", ("wall", "box"), "", ("black", "grey")),
    WorldKind("duck", (), "yellow"),
    WorldKind("keycard", ("key", "box"), "blue"),
    WorldKind("medkit", ("box",), "red"),
    WorldKind("potion", ("bottle",), "red", ("white", "orange", "brown")),
    WorldKind("tree", ("pine tree",), "green", ("brown",)),
    WorldKind("pine tree", ("tree",), "green", ("brown", "black")),
    WorldKind("building", ("house", "box"), "", ("white", "black", "grey")),
    WorldKind("key"),
    WorldKind("ball"),
    WorldKind("box"),
)
_KINDS_OF_WORLDS = (*ROBOSUITE_KINDS, *MINIWORLD_KINDS)
WORLD_KINDS = tuple(dict.fromkeys(kind.name for kind in (*ROBOSUITE_KINDS, *MINIWORLD_KINDS)))


@dataclass(frozen=True)
class Thing:
    """An object with its finish."""

    kind: WorldKind
    finish: str
    """`OWN` or one of `COLOURS`."""

    @property
    def colour(self) -> str:
        """The colour that goals may use for it; "" if it has no single colour."""
        return self.kind.own_colour if self.finish == OWN else self.finish

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Colours that might describe its look, other than its true one."""
        return self.kind.could_be if self.finish == OWN else ()


@dataclass(frozen=True, eq=False)
class WorldSample(SceneSample):
    """A scene of another simulator."""

    avoided: frozenset[str] = frozenset()
    """Words that no goal about the scene may use, because their truth is ambiguous."""


def held_out_seed(seed: int) -> bool:
    """Whether a scene's seed belongs to a data seed that is held out of training: those with remainder 4
    modulo 5."""
    return seed // SEED_STRIDE % HELD_OUT_ONE_IN == HELD_OUT_ONE_IN - 1


def held_out_name(name: str) -> bool:
    """Whether a texture or a painted kind is held out of training, by its name."""
    return zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0


def split(names: Sequence[str], held_out: bool) -> list[str]:
    """Names that scenes of one side may draw from: the held-out ones, or the others."""
    return [name for name in names if held_out_name(name) == held_out]


def draw_things(
    rng: np.random.Generator,
    kinds: Sequence[WorldKind],
    count: int,
    held_out: bool,
    finishes: Mapping[str, Sequence[str]],
) -> list[Thing]:
    """Draw `count` kinds with a finish each; no two kinds of a scene share a name.

    finishes: possible finishes of each kind. Scenes of training never contain a painted kind that is held
    out; those of the held-out seeds contain one with probability 0.5 if there is one.
    """
    chosen = list(kinds)
    if rng.random() < 0.5:
        chosen = [
            chosen[int(i)]
            for i in rng.choice(len(chosen), min(len(chosen), int(rng.integers(2, 6))), replace=False)
        ]
    colours = list(COLOURS)
    if rng.random() < 0.5:
        colours = [str(c) for c in rng.choice(colours, int(rng.integers(2, 5)), replace=False)]
    things: list[Thing] = []
    for _ in range(60):
        if len(things) == count:
            break
        kind = chosen[int(rng.integers(len(chosen)))]
        if any(kind.name in other.kind.also or other.kind.name in kind.also for other in things):
            continue
        options = [f for f in finishes[kind.name] if f == OWN or f in colours] or list(finishes[kind.name])
        allowed = [f for f in options if f == OWN or not held_out_name(f"{kind.name} {f}")]
        kept_out = [f for f in options if f not in allowed]
        if held_out and kept_out and rng.random() < 0.5:
            allowed = kept_out
        if not allowed:
            continue
        own = OWN in allowed and rng.random() < 0.5
        things.append(Thing(kind, OWN if own else allowed[int(rng.integers(len(allowed)))]))
    return things


def avoided_words(things: Sequence[Thing]) -> frozenset[str]:
    """Words whose truth is ambiguous in a scene of these objects: other names of its kinds, and colours of
    mixed looks."""
    words = {name for thing in things for name in thing.kind.also}
    return frozenset(words | {colour for thing in things for colour in thing.doubtful})


def avoided_among(objects: Sequence[SceneObject]) -> frozenset[str]:
    """The words of `avoided_words` for annotated objects, whose finish is not known: colours of a kind's own
    look count for every object that may have it."""
    things = [
        Thing(kind, OWN if item.colour == kind.own_colour else item.colour)
        for item in objects
        for kind in _KINDS_OF_WORLDS
        if kind.name == item.kind
    ]
    return avoided_words(things)


def scene_object(
    thing: Thing,
    mask: NDArray[np.bool_],
    whole: int,
    points: Array,
    rotation: Array,
    position: Array,
    least: float = MIN_VISIBLE,
    cut: bool = False,
) -> SceneObject | None:
    """Describe an object as seen by a camera; None if it is too small, hidden too much, or cut by the border.

    mask: its visible pixels, HxW; whole: pixels it would have in the picture if nothing hid it; points: Px3
    of its surface in the world, z up; rotation, position: of the camera, columns right, down, forward; least:
    share of `whole` that is visible at least; cut: the border may cut it.
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    height, width = mask.shape
    area = int(mask.sum())
    if not columns.size or area < MIN_AREA * mask.size or area < least * whole:
        return None
    at_border = columns[0] == 0 or rows[0] == 0 or columns[-1] == width - 1 or rows[-1] == height - 1
    if at_border and not cut:
        return None
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    centre, axes, size = upright_box(points)
    local = rotation.T @ (centre - position)
    place = (float(local[0]), float(local[1]), float(local[2]))
    extents = (float(size[0]), float(size[1]), float(size[2]))
    box_3d = Box3D(place, quaternion_from_matrix(rotation.T @ axes), extents)
    visible = min(1.0, area / max(1, whole))
    sizes = (extents[0], extents[2], extents[1])
    return SceneObject(thing.kind.name, thing.colour, box, visible, area, place, sizes, box_3d)


def upright_box(points: Array) -> tuple[Array, Array, Array]:
    """The smallest box with z up around points: centre, 3x3 axes as columns, and size along them; x is the
    longer side."""
    (x, y), (length, width), degrees = cv2.minAreaRect(points[:, :2].astype(np.float32))
    angle = np.deg2rad(degrees)
    if width > length:
        length, width, angle = width, length, angle + np.pi / 2
    low, high = points[:, 2].min(), points[:, 2].max()
    c, s = np.cos(angle), np.sin(angle)
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    return np.array([x, y, (low + high) / 2]), axes, np.array([length, width, high - low])


def world_goals(sample: WorldSample, rng: np.random.Generator, per_kind: int = 1) -> list[SceneGoal]:
    """Draw goals about the scene with `goal_generator.draw_goals`, without those that use an avoided word."""
    named = tuple(dataclasses.replace(item, colour=item.colour or _MIXED) for item in sample.objects)
    drawn = draw_goals(dataclasses.replace(sample, objects=named), rng, 6 * per_kind)
    drawn += [goal for _ in range(4 * per_kind) if (goal := _absent_elsewhere(sample, rng)) is not None]
    order = rng.permutation(len(drawn))
    kept: dict[str, SceneGoal] = {}
    counts: dict[str, int] = {}
    kinds = [item.kind for item in sample.objects]
    for goal in (drawn[int(i)] for i in order):
        if goal.text in kept or counts.get(goal.kind, 0) >= per_kind:
            continue
        if not is_clear(goal.text, kinds, sample.avoided):
            continue
        kept[goal.text] = goal
        counts[goal.kind] = counts.get(goal.kind, 0) + 1
    return list(kept.values())


def is_clear(text: str, kinds: Sequence[str], avoided: frozenset[str]) -> bool:
    """Whether a goal's text uses no avoided word; a kind's name in the scene may contain one, e.g. "cereal
    box"."""
    rest = text
    for kind in sorted(set(kinds), key=len, reverse=True):
        if kind not in avoided:
            rest = re.sub(rf"\b(?:{re.escape(plural(kind))}|{re.escape(kind)})\b", "", rest)
    words = [*avoided, *(plural(word) for word in avoided), _MIXED]
    return not any(re.search(rf"\b{re.escape(word)}\b", rest) for word in words)


def _absent_elsewhere(sample: WorldSample, rng: np.random.Generator) -> SceneGoal | None:
    """Draw a kind of these worlds that the scene does not contain, with or without a colour."""
    if rng.random() > _ABSENT_ELSEWHERE:
        return None
    here = {item.kind for item in sample.objects}
    others = [name for name in WORLD_KINDS if name not in here]
    name = others[int(rng.integers(len(others)))]
    # A name that is part of another name in the picture would be ambiguous: "box" beside a cereal box.
    if any(
        re.search(rf"\b{re.escape(name)}\b", kind) or re.search(rf"\b{re.escape(kind)}\b", name)
        for kind in here
    ):
        return None
    colour = f"{COLOURS[int(rng.integers(len(COLOURS)))]} " if rng.random() < 0.4 else ""
    article = "" if rng.random() < 0.15 else "the "
    return SceneGoal(f"{article}{colour}{name}", "absent", ())
