"""Rendered scenes with ground truth: picture, depth, intrinsics and objects. Needs MuJoCo but no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import quaternion_from_matrix
from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.drawing import Canvas
from groma_ros.simulation.layout import USUAL, Layout, Style
from groma_ros.simulation.shapes import KINDS
from groma_ros.simulation.worlds import WIDE, draw_layout, world_of
from groma_ros.types import Box3D, FloatArray, Intrinsics

__all__ = ["COLOURS", "KINDS", "SceneObject", "SceneRenderer", "SceneSample"]

MIN_OBJECTS, MAX_OBJECTS = 4, 9
ASPECTS = (1.0, 4 / 3, 16 / 9)
MIN_VISIBLE = 0.55
_TRIES = 40
_ROUND = 2.0  # pixels


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) of its visible pixels, camera pixels; x2 and y2 exclusive."""
    visible: float
    """Visible share, 0..1."""
    area: int
    """Number of visible pixels."""
    position: tuple[float, float, float]
    """Middle of its height above its origin, in the optical frame (x right, y down, z forward), metres."""
    size: tuple[float, float, float]
    """(width, height, depth) in its own axes, metres."""
    box_3d: Box3D | None = None
    """Oriented box around all of it, including hidden parts."""
    support: int = -1
    """Index of the object that it stands on or lies in, -1 for none."""
    inside: bool = False
    """Whether it lies in its support."""


@dataclass(frozen=True, eq=False)
class SceneSample:
    """A rendered scene."""

    rgb: NDArray[np.uint8]
    """uint8 HxWx3."""
    depth: FloatArray
    """float32 HxW, metres along the optical axis."""
    intrinsics: Intrinsics
    objects: tuple[SceneObject, ...]
    seed: int
    world: str = field(default="table", kw_only=True)
    """Name of its world."""


def check_camera(width: int, height: int, aspect: float | Literal["random"] | None, supersample: int) -> None:
    """Raise ValueError for a size or aspect in which scenes do not fit."""
    if supersample < 1 or not all(32 <= side * supersample <= 4096 for side in (width, height)):
        size = f"{width}x{height}, supersampled {supersample} times,"
        raise ValueError(f"A picture of {size} is out of range: take 32 to 4096 pixels.")
    if aspect is None and not 0.4 <= width / height <= 2.5:
        raise ValueError(
            f"A picture of {width}x{height} has the aspect {width / height:.3g}, which is out of range: take "
            "0.4 to 2.5."
        )
    if aspect is not None and aspect != "random" and not 0.4 <= aspect <= 2.5:
        raise ValueError(f"A camera of aspect {aspect:g} is out of range: take 0.4 to 2.5.")


class SceneRenderer:
    """Renders scenes by seed. A scene depends only on the seed and the renderer's settings.

    width, height: of the picture, pixels. aspect: None for square pixels; a number W/H or "random" (1:1, 4:3,
    16:9) to stretch the picture of a camera with that aspect into width x height. supersample: factor by
    which the picture is drawn larger and averaged down, which removes jagged edges; masks and depth are
    always drawn at width x height. world: a name of `worlds.WORLDS` or "mixed", where the seed decides;
    style: deviation of the scenes from those of training. A renderer belongs to one thread; close it, or use
    it as a context manager. Raises drawing.RenderingUnavailable if neither EGL nor OSMesa works, ValueError
    for a size or aspect in which scenes do not fit.
    """

    def __init__(
        self,
        width: int = 224,
        height: int = 224,
        aspect: float | Literal["random"] | None = None,
        supersample: int = 1,
        world: str = "table",
        style: Style = USUAL,
    ) -> None:
        check_camera(width, height, aspect, supersample)
        self.width, self.height = width, height
        self._aspect, self._scale = aspect, supersample
        self._world, self._style = world, style
        self._canvas = Canvas(width * supersample, height * supersample)

    def render(self, seed: int) -> SceneSample:
        """Render the scene of `seed`. Layouts with an object that is too small, cut or hidden are drawn again
        from the same seed."""
        layout, objects = self.compose(seed)
        rgb, depth = self.picture(layout)
        return SceneSample(
            rgb, depth, layout.camera.intrinsics, objects, seed, world=world_of(self._world, seed)
        )

    def compose(
        self, seed: int, least: int = MIN_OBJECTS, accept: Callable[[Layout], bool] | None = None
    ) -> tuple[Layout, tuple[SceneObject, ...]]:
        """Return the layout of `seed` and its visible objects without rendering the picture.

        least: minimum number of objects, up to 9; accept: condition that the layout must satisfy.
        """
        head = np.random.default_rng([seed, 0])
        wanted = int(head.integers(least, MAX_OBJECTS + 1))
        aspect = self._draw_aspect(head, seed)
        world, size = world_of(self._world, seed), (self.width, self.height)
        attempt = 0
        while True:
            attempt += 1
            count = max(least, wanted - attempt // _TRIES)
            layout = draw_layout(
                world, np.random.default_rng([seed, attempt]), count, size, aspect, self._style
            )
            if layout is None or (accept is not None and not accept(layout)):
                continue
            objects = self.observe(layout)
            if objects is not None:
                return layout, objects

    def _draw_aspect(self, rng: np.random.Generator, seed: int) -> float:
        if self._aspect is None:
            return self.width / self.height
        if self._aspect == "random" and world_of(self._world, seed) == WIDE:
            return float(rng.uniform(ASPECTS[0], ASPECTS[-1]))
        return float(rng.choice(ASPECTS)) if self._aspect == "random" else float(self._aspect)

    def picture(self, layout: Layout) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres of a layout."""
        rgb, depth = self._canvas.picture(layout.world(), layout.camera, self._scale)
        if self._scale == 1:
            return rgb, depth
        small = cv2.resize(rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)
        middle = self._scale // 2
        return np.asarray(small, np.uint8), np.ascontiguousarray(
            depth[middle :: self._scale, middle :: self._scale]
        )

    def observe(self, layout: Layout) -> tuple[SceneObject, ...] | None:
        """The objects as the layout's camera sees them, or None if one is too small, touches the border or is
        hidden too much."""
        labels = self._canvas.labels(layout.world(), layout.camera)
        found = [_extent(labels, index) for index in range(len(layout.bodies))]
        least = max(1, round(layout.least * labels.size))
        if any(area < least or _touches_border(box, labels.shape) for box, area in found):
            return None
        whole = self._whole_areas(layout, [area for _, area in found])
        visible = [min(1.0, area / full) for (_, area), full in zip(found, whole, strict=True)]
        if min(visible) < MIN_VISIBLE:
            return None
        return tuple(_object(layout, index, *found[index], visible[index]) for index in range(len(found)))

    def _whole_areas(self, layout: Layout, areas: list[int]) -> list[int]:
        """Pixels of each object if nothing hid it. Objects whose outlines do not meet are drawn together."""
        # Outlines of round objects are polygons inside them, so their boxes may be a pixel too small.
        bounds = layout.bounds() + [-_ROUND, -_ROUND, _ROUND, _ROUND]
        meets = _meets(bounds, bounds)
        np.fill_diagonal(meets, False)
        behind = meets.any(1) | _meets(bounds, layout.screen_bounds()).any(1)
        waiting = [int(i) for i in np.flatnonzero(behind)]
        whole = list(areas)
        while waiting:
            group: list[int] = []
            for i in waiting:
                if not meets[i, group].any():
                    group.append(i)
            labels = self._canvas.labels(layout.only(group), layout.camera)
            counts = np.bincount(labels[labels >= 0], minlength=len(areas))
            for i in group:
                whole[i] = int(counts[i])
            waiting = [i for i in waiting if i not in group]
        return whole

    def close(self) -> None:
        """Free the OpenGL resources."""
        self._canvas.close()

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _extent(labels: NDArray[np.int64], index: int) -> tuple[tuple[float, float, float, float], int]:
    """xyxy box (exclusive end) and pixel count of a label."""
    mask = labels == index
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not columns.size:
        return (0.0, 0.0, 0.0, 0.0), 0
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)), int(mask.sum())


def _meets(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which xyxy boxes of (N, 4) and (M, 4) share a point, NxM."""
    return np.asarray((a[:, None, :2] <= b[None, :, 2:]).all(-1) & (b[None, :, :2] <= a[:, None, 2:]).all(-1))


def _touches_border(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> bool:
    return box[0] <= 0 or box[1] <= 0 or box[2] >= shape[1] or box[3] >= shape[0]


def _object(
    layout: Layout, index: int, box: tuple[float, float, float, float], area: int, visible: float
) -> SceneObject:
    body, camera = layout.bodies[index], layout.camera
    centre, rotation, size = body.box()
    box_3d = Box3D(
        _triple(camera.to_optical(centre)),
        quaternion_from_matrix(camera.rotation.T @ rotation),
        _triple(size),
    )
    position = _triple(camera.to_optical(body.centre))
    return SceneObject(
        body.kind,
        body.colour,
        box,
        visible,
        area,
        position,
        _triple(body.solid.size),
        box_3d,
        body.support,
        body.inside,
    )


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
