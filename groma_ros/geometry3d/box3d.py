"""Convert an image box with registered depth to an oriented box in space.

The supporting surface (table, shelf, floor) is found around the box and removed. The remaining part that
matches the box best is the object; its hidden side is completed. docs/depth.md describes the method, its
limits and measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points, backproject_pixels, project, quaternion_from_matrix
from groma_ros.geometry3d.circle_fit import find_round, round_footprint
from groma_ros.geometry3d.depth_segmentation import FITS, Box, Mask, cut_at_jumps, only, select, smoothed
from groma_ros.geometry3d.footprint import (
    Axes,
    Footprint,
    SurfaceView,
    convex_hull,
    hidden_counterparts,
    smallest_rectangle,
)
from groma_ros.geometry3d.plane_ransac import Plane, evenly, find_planes, quantile, quantiles
from groma_ros.types import Box3D, Detection, FloatArray, Frame, Grounding, IntArray, Intrinsics

Array = NDArray[np.float64]

_UNKNOWN_NOISE = 0.002
_SURE = 0.85
_NEARER = 0.2  # border around the box that is segmented first, as a share of its longer side
_MIDDLE = 500  # points, to twice as many, of which the median is taken
_NEAREST, _FARTHEST = 1e-3, 1e4  # metres; other depths are not measurements
_FOCAL = 1.0, 1e6  # pixels
_LARGEST_CENTRE = 1e6  # pixels


@dataclass(frozen=True)
class DepthRule:
    """Limits for placing a box in space."""

    least_points: int = 40
    """Minimum number of the object's pixels with depth."""
    margin: float = 0.6
    """Width of the border around the box in which the support is searched, as a share of its longer side."""
    lift: float = 0.0025
    """Points less than this above the support belong to it, metres."""
    most_pixels: int = 120_000
    """Larger windows are subsampled to about this many pixels."""


class DepthError(ValueError):
    """A box that cannot be placed in 3D. The message is a sentence for the log, `cause` a few words by which
    diagnostics count it."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


@dataclass(frozen=True)
class Placement:
    """An object in 3D.

    If no support is visible, the box has the height of the visible part, and up is taken from the camera.
    """

    box: Box3D
    """In the camera's optical frame."""
    points: int
    """Number of pixels used."""
    standing: bool
    """Whether it stands on a visible support."""


@dataclass(frozen=True)
class Placed:
    """A detection with its 3D box."""

    goal: str
    """Text of its goal."""
    number: int
    """Index of that goal."""
    detection: Detection
    placement: Placement


@dataclass(frozen=True, eq=False)
class _Surface:
    """Visible surface of an object."""

    mask: Mask
    """Its pixels in the view."""
    pixels: IntArray
    """int64 N: the same pixels as flat indices."""
    plane: Plane | None
    """The support; None if none is visible."""
    fit: float
    """IoU of the box around the pixels with the requested box."""
    gap: float
    """Height of its lowest points above the plane, metres."""

    @property
    def merit(self) -> float:
        """Score for choosing among supports: the right one leaves pixels that fill the box and start at the
        support.

        If a floor and a wall fit equally the floor wins: cameras are rarely rolled by 90°, and one that
        looks straight down sees no wall.
        """
        level = -self.plane.normal[1] if self.plane is not None else 0.0
        return self.fit - 0.3 * min(1.0, self.gap / 0.05) - 0.2 * min(1.0, max(0.0, 1 - level / 0.25))


def place(frame: Frame, box: Sequence[float], rule: DepthRule | None = None) -> Placement:
    """Compute the 3D box of the object framed by an xyxy box (camera pixels).

    Raises DepthError if the box has too little depth, or nothing stands out from its surroundings.
    """
    if frame.depth is None or frame.intrinsics is None:
        raise DepthError(
            "missing",
            "The image came without depth or without camera_info, so no 3D positions are available.",
        )
    rule = rule or DepthRule()
    view, inner = _view(frame, box, rule)
    surface = _find_surface(view, inner, rule)
    noise = surface.plane.noise if surface.plane else _UNKNOWN_NOISE
    depth = view.depth
    if surface.plane and (size := _smoothing(noise)):
        depth = smoothed(depth, surface.mask, size)
    points = backproject_pixels(depth, surface.pixels, view.camera)
    return _fit(points, surface, view, noise)


def place_all(
    frame: Frame,
    groundings: Sequence[Grounding],
    refused: Callable[[DepthError], None],
    rule: DepthRule | None = None,
) -> tuple[Placed, ...]:
    """Place all detections, in the order of the goals, best first within each goal. Returns those that could
    be placed.

    refused: called for each box that could not be placed. A box that answers several goals is placed once.
    """
    known: dict[tuple[float, float, float, float], Placement | None] = {}
    placed = []
    for number, grounding in enumerate(groundings):
        for detection in sorted(grounding.detections, key=lambda item: -item.score):
            if detection.box not in known:
                try:
                    known[detection.box] = place(frame, detection.box, rule)
                except DepthError as error:
                    known[detection.box] = None
                    refused(error)
            placement = known[detection.box]
            if placement is not None:
                placed.append(Placed(grounding.goal.text, number, detection, placement))
    return tuple(placed)


def _view(frame: Frame, box: Sequence[float], rule: DepthRule) -> tuple[SurfaceView, Box]:
    """Depth around a box, subsampled if large, and the box in pixels of that window."""
    depth, camera = frame.depth, frame.intrinsics
    assert depth is not None and camera is not None
    _check(depth, camera)
    height, width = depth.shape
    x1, y1, x2, y2 = (float(value) for value in box)
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    name = f"The box ({', '.join(f'{float(value):.0f}' for value in box)})"
    if not (x2 - x1 >= 1 and y2 - y1 >= 1):
        raise DepthError("box", f"{name} covers no pixel of the {width}x{height} image.")
    margin = rule.margin * max(x2 - x1, y2 - y1) + 8
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right, bottom = min(width, math.ceil(x2 + margin)), min(height, math.ceil(y2 + margin))
    step = math.ceil(math.sqrt((right - left) * (bottom - top) / rule.most_pixels))
    part = np.asarray(depth[top:bottom:step, left:right:step], np.float32)
    part = only(np.asarray(cv2.inRange(part, _NEAREST, _FARTHEST), np.uint8), part, np.nan)
    middle = ((camera.cx - left) / step, (camera.cy - top) / step)
    own = Intrinsics(camera.fx / step, camera.fy / step, *middle, part.shape[1], part.shape[0])
    a, b, c, d = (
        (value - start - 0.5) / step + 0.5
        for value, start in zip((x1, y1, x2, y2), (left, top, left, top), strict=True)
    )
    inside = part[max(0, int(b)) : max(1, math.ceil(d)), max(0, int(a)) : max(1, math.ceil(c))]
    measured = int(np.count_nonzero(np.isfinite(inside)))
    if measured < rule.least_points:
        raise DepthError(
            "holes", f"{name} holds {measured} pixels with depth, and {rule.least_points} are needed."
        )
    return SurfaceView(part, own), (a, b, c, d)


def _check(depth: FloatArray, camera: Intrinsics) -> None:
    """Raise DepthError for depth in another format, and for intrinsics that are not those of a pinhole
    camera."""
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise DepthError(
            "encoding",
            f"The depth is {depth.dtype} of shape {depth.shape}; it must be floating-point metres, height x "
            "width.",
        )
    least, most = _FOCAL
    focal = all(least <= value <= most for value in (camera.fx, camera.fy))
    if not (focal and all(abs(value) <= _LARGEST_CENTRE for value in (camera.cx, camera.cy))):
        raise DepthError(
            "calibration",
            f"The intrinsics fx {camera.fx:g}, fy {camera.fy:g}, cx {camera.cx:g} and cy {camera.cy:g} are "
            "not those of a pinhole camera in pixels.",
        )


def _find_surface(view: SurfaceView, box: Box, rule: DepthRule) -> _Surface:
    """Segment the object framed by the box, on the support that explains it best. Raises DepthError if
    nothing stands out."""
    best: _Surface | None = None
    known = np.isfinite(view.depth)
    sample = backproject_pixels(view.depth, evenly(known), view.camera)
    for plane in find_planes(sample):
        found = _raised(view, box, plane, rule)
        if found is not None:
            best = found if best is None or found.merit > best.merit else best
            if best.merit > _SURE:
                return best
    if best is None or best.merit < 0.5:
        pieces = cut_at_jumps(view.depth, known, *_jump(_UNKNOWN_NOISE, view))
        mask, fit = select(pieces, view.depth, view.camera.fx, box, rule.least_points)
        pixels = np.flatnonzero(mask)
        if len(pixels) and fit > max(0.5, best.merit if best is not None else 0.0):
            best = _Surface(mask, pixels, None, fit, 0.0)
    if best is None or best.fit < 0.2:
        raise DepthError("flat", "Nothing in the box stands out from the surface around it by depth.")
    return best


def _jump(noise: float, view: SurfaceView) -> tuple[float, float]:
    """The depth step of one pixel on a slanted surface, with some tolerance: metres, and share of the
    depth."""
    return 0.006 + 4 * noise, 5 / view.camera.fx


def _raised(view: SurfaceView, box: Box, plane: Plane, rule: DepthRule) -> _Surface | None:
    """The object on this support, None if nothing stands on it there.

    First only the nearer surroundings of the box are segmented, two fifths of the window; the whole window
    only if what is found there reaches their border or fits the box poorly.
    """
    rows, columns = near = _nearer(box, view)
    camera = replace(
        view.camera,
        cx=view.camera.cx - columns.start,
        cy=view.camera.cy - rows.start,
        width=columns.stop - columns.start,
        height=rows.stop - rows.start,
    )
    x, y = columns.start, rows.start
    inner = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
    found = _raised_in(SurfaceView(view.depth[near], camera), inner, plane, rule)
    if found is None or found.fit < FITS:
        return _raised_in(view, box, plane, rule)
    mask = np.zeros(view.depth.shape, np.bool_)
    mask[near] = found.mask
    if _touches(mask, near):
        return _raised_in(view, box, plane, rule)
    return replace(found, mask=mask, pixels=np.flatnonzero(mask))


def _raised_in(view: SurfaceView, box: Box, plane: Plane, rule: DepthRule) -> _Surface | None:
    """The object on this support in a window, None if there is none."""
    height = plane.height_of(view.depth, view.camera)
    raised = height > max(rule.lift, 3.5 * plane.noise)
    pieces = cut_at_jumps(view.depth, raised, *_jump(plane.noise, view))
    mask, fit = select(pieces, view.depth, view.camera.fx, box, rule.least_points)
    pixels = np.flatnonzero(mask)
    if not len(pixels):
        return None
    return _Surface(mask, pixels, plane, fit, quantile(height.ravel()[pixels], 0.003))


def _nearer(box: Box, view: SurfaceView) -> tuple[slice, slice]:
    """Rows and columns of the nearer surroundings of a box."""
    height, width = view.depth.shape
    margin = _NEARER * max(box[2] - box[0], box[3] - box[1]) + 4
    rows = slice(max(0, int(box[1] - margin)), min(height, math.ceil(box[3] + margin)))
    return rows, slice(max(0, int(box[0] - margin)), min(width, math.ceil(box[2] + margin)))


def _touches(mask: Mask, part: tuple[slice, slice]) -> bool:
    """Whether a mask that is empty outside a part of the image reaches the part's border, where that is not
    the image's."""
    rows, columns = part
    height, width = mask.shape
    return bool(
        (rows.start > 0 and mask[rows.start].any())
        or (rows.stop < height and mask[rows.stop - 1].any())
        or (columns.start > 0 and mask[:, columns.start].any())
        or (columns.stop < width and mask[:, columns.stop - 1].any())
    )


def _smoothing(noise: float) -> int:
    """Side in pixels of the neighbourhood over which depth is averaged on the object; 0 if averaging is not
    needed."""
    return 0 if noise < 0.0007 else 3 if noise < 0.002 else 5


def _fit(points: Points, surface: _Surface, view: SurfaceView, noise: float) -> Placement:
    """Fit a box to a surface's points (N, 3), completed by the parts they hide."""
    axes = _axes(points, surface.plane)
    local = axes.to_local(points)
    hull = convex_hull(local)
    circle = find_round(local, hull, 0.0015 + noise)
    if circle is not None:
        footprint = round_footprint(local, circle, 0.003 + 2 * noise)
    else:
        hidden = hidden_counterparts(local, axes, view, 0.001 + 2 * noise)
        footprint = smallest_rectangle(np.concatenate([hull, hidden[:, :2]]))
    standing = surface.plane is not None and _stands(local, surface, axes, view, noise)
    base, top = (0.0 if standing else float(local[:, 2].min())), float(local[:, 2].max())
    return Placement(_box(axes, footprint, base, top), len(points), standing)


def _axes(points: Points, plane: Plane | None) -> Axes:
    """Axes on the support below the centre of the points. Without a support, up is the image's up."""
    some = points[:: max(1, len(points) // _MIDDLE)]
    middle = quantiles(some.T, 0.5)
    up = plane.normal if plane is not None else np.array([0.0, -1.0, 0.0])
    away = middle - up * (middle @ up)
    if away @ away < 1e-12 * (middle @ middle):
        away = np.array([0.0, -up[2], up[1]])  # seen from directly above: any direction is valid
    away = away / math.sqrt(away @ away)
    origin = middle - up * plane.height(middle) if plane is not None else middle
    (a, b, c), (d, e, f) = up.tolist(), away.tolist()
    left = (b * f - c * e, c * d - a * f, a * e - b * d)  # up x away
    return Axes(origin, np.array([away, left, up]))


def _stands(local: Points, surface: _Surface, axes: Axes, view: SurfaceView, noise: float) -> bool:
    """Whether the object rests on the support even though its lowest visible point is above it, because its
    lower part curves inwards or is hidden."""
    top = local[:, 2].max()
    if surface.gap < 0.015 or surface.gap > 0.5 * top:
        return surface.gap < 0.015
    if _hidden_below(surface.mask, axes, view) > 0.4:
        return True
    height = local[:, 2]
    low = height < height.min() + 0.06 * np.ptp(height)
    curved = quantile(local[low, 0], 0.02) - quantile(local[:, 0], 0.005)
    return curved > 0.0015 + 0.3 * noise


def _hidden_below(mask: Mask, axes: Axes, view: SurfaceView) -> float:
    """Share of the mask's lower border below which something closer to the camera is visible."""
    start, end = project(axes.to_optical(np.array([[0, 0, 0.05], [0, 0, 0.04]])), view.camera)
    down = end - start
    length = np.linalg.norm(down)
    if not length > 0:
        return 0.0
    across, along = (int(value) for value in np.rint(3 * down / length))
    # The window without the pixels whose lower neighbour is outside, and that neighbour of each.
    height, width = mask.shape
    if abs(along) >= height or abs(across) >= width:
        return 0.0
    here = np.s_[max(0, -along) : height - max(0, along), max(0, -across) : width - max(0, across)]
    below = np.s_[max(0, along) : height + min(0, along), max(0, across) : width + min(0, across)]
    border = mask[here] & ~mask[below]
    if not border.any():
        return 0.0
    nearer = view.depth[below][border] < view.depth[here][border] - 0.01
    return float(nearer.mean())


def _box(axes: Axes, footprint: Footprint, base: float, top: float) -> Box3D:
    cos, sin = math.cos(footprint.angle), math.sin(footprint.angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    x, y, z = (float(value) for value in axes.to_optical(np.array([*footprint.centre, (base + top) / 2])))
    length, width = (float(value) for value in footprint.sides)
    return Box3D((x, y, z), quaternion_from_matrix((turn @ axes.rows).T), (length, width, top - base))
