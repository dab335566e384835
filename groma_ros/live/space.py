"""The 3D view of a frame with depth: a sample of its points with colours, and the 3D boxes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import backproject, corners
from groma_ros.geometry3d.box3d import DepthError, place_all
from groma_ros.live.engine import Shown
from groma_ros.types import Box3D, Frame

POINTS = 6000
"""Approximate number of points."""
FAR = 20.0
"""Maximum distance of points, metres."""


def placed(shown: Shown) -> tuple[tuple[int, Box3D], ...]:
    """Compute the 3D boxes of a frame's answers, each with the index of its goal."""
    if shown.places is not None:
        return shown.places
    if shown.frame.depth is None or shown.frame.intrinsics is None:
        return ()

    def refused(error: DepthError) -> None:
        logging.getLogger(__name__).debug("%s", error)  # the box is drawn in the picture only

    found = place_all(shown.frame, shown.groundings, refused)
    return tuple((item.number, item.placement.box) for item in found)


def point_cloud(frame: Frame, boxes: Sequence[tuple[int, Box3D]]) -> tuple[dict[str, Any], bytes] | None:
    """Return boxes for JSON, and points as bytes; None for a frame without depth and boxes.

    The bytes are N float32 triples (metres, camera's optical frame), then N uint8 triples (RGB); `points` in
    the mapping is N. A box has its goal's index and its 8 corners.
    """
    known = frame.depth is not None and frame.intrinsics is not None
    if not known and not boxes:
        return None
    xyz: NDArray[Any] = np.zeros((0, 3), "<f4")
    rgb: NDArray[Any] = np.zeros((0, 3), np.uint8)
    if frame.depth is not None and frame.intrinsics is not None:
        step = max(1, round((frame.depth.size / POINTS) ** 0.5))
        camera, thin = frame.intrinsics, frame.depth[::step, ::step]
        coarse = replace(
            camera, fx=camera.fx / step, fy=camera.fy / step, cx=camera.cx / step, cy=camera.cy / step
        )
        points = backproject(thin, coarse).reshape(-1, 3)
        colours = frame.rgb[::step, ::step].reshape(-1, 3)
        seen = np.isfinite(points).all(1) & (points[:, 2] > 0) & (points[:, 2] < FAR)
        xyz, rgb = points[seen].astype("<f4"), colours[seen]
    shown = [{"goal": goal, "corners": corners(box).round(4).tolist()} for goal, box in boxes]
    return {"points": len(xyz), "boxes": shown}, xyz.tobytes() + np.ascontiguousarray(rgb).tobytes()
