"""Whether an image is rectified, which decides between the two pinholes of its camera_info: P for a rectified
image, K for a raw one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from groma_ros.io.depth_images import CameraInfo

SETTINGS = ("auto", "true", "false")
"""Values of the setting `rectified`: auto decides by the topic's name and the camera_info."""
_RECTIFIED_WORDS = frozenset({"rect", "rectified"})
_RAW_WORDS = frozenset({"raw", "unrectified", "distorted", "unrect"})
_SAME_PIXELS = 0.5
"""Pixels that K and P may differ by and still place an object alike."""


@dataclass(frozen=True)
class Rectification:
    """Choice of the projection (K or P) of a camera_info that belongs to an image."""

    rectified: bool
    """True: take P; False: take K."""
    guess: str = ""
    """A sentence for the log where K and P differ and nothing said which of them is right, else empty."""


def rectification(setting: str, topic: str, info: CameraInfo) -> Rectification:
    """Decide whether the images of a topic are rectified.

    setting: one of SETTINGS; topic: full name of the image topic. With auto, `rect` or `rectified` as a word
    of the topic's name means rectified, and `raw` means not. Where the name says neither, K is taken, and
    `guess` says so if P would place objects elsewhere.
    """
    if setting not in SETTINGS:
        raise ValueError(f"rectified is {setting!r}; it must be one of {', '.join(SETTINGS)}.")
    if not _has_projection(info):
        return Rectification(False)
    if setting != "auto":
        return Rectification(setting == "true")
    # From the image's own name outwards to its namespaces. RealSense calls a rectified image image_rect_raw.
    for name in reversed(topic.split("/")):
        words = set(re.split(r"[_\W]+", name.lower()))
        if words & _RECTIFIED_WORDS:
            return Rectification(True)
        if words & _RAW_WORDS:
            return Rectification(False)
    if not _differ(info):
        return Rectification(False)
    k, p = np.asarray(info.k, float), np.asarray(info.p, float)
    return Rectification(
        False,
        f"The camera_info of {topic} has a focal length of {k[0]:.1f} pixels in K (raw images) and "
        f"{p[0]:.1f} in P (rectified images), and the topic's name does not say which image it is: K is "
        "taken. Set the parameter rectified to true or false.",
    )


def _has_projection(info: CameraInfo) -> bool:
    """Whether P is that of a pinhole; drivers without a calibration leave it zero."""
    p = np.asarray(info.p, float)
    return bool(p.size == 12 and np.isfinite(p).all() and p[0] > 0 and p[5] > 0)


def _differ(info: CameraInfo) -> bool:
    k, p = np.asarray(info.k, float), np.asarray(info.p, float)
    return bool(np.abs(k[[0, 2, 4, 5]] - p[[0, 2, 5, 6]]).max() > _SAME_PIXELS)
