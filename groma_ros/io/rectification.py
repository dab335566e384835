"""Decide whether an image is rectified, and thus which matrix of its camera_info applies: P for a rectified
image, K for a raw one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from groma_ros.io.depth_images import CameraInfo

SETTINGS = ("auto", "true", "false")
"""Values of the parameter `rectified`; auto decides by the topic name and the camera_info."""
_RECTIFIED_WORDS = frozenset({"rect", "rectified"})
_RAW_WORDS = frozenset({"raw", "unrectified", "distorted", "unrect"})
_SAME_PIXELS = 0.5
"""Difference in pixels up to which K and P place an object equally."""


@dataclass(frozen=True)
class Rectification:
    """Which matrix (K or P) of a camera_info belongs to an image."""

    rectified: bool
    """True: use P; False: use K."""
    guess: str = ""
    """Sentence for the log if the choice was a guess that matters, else empty."""


def rectification(setting: str, topic: str, info: CameraInfo) -> Rectification:
    """Decide whether the images of a topic are rectified.

    setting: one of SETTINGS; topic: full name of the image topic. With auto, `rect` or `rectified` as a word
    of the topic name means rectified, `raw` means not rectified: as a word of its last part, or as a whole
    namespace. Otherwise K is used, and `guess` says so if P would place objects elsewhere; it also says that
    the camera_info of rectified images has no P.
    """
    if setting not in SETTINGS:
        raise ValueError(f"rectified is {setting!r}; it must be one of {', '.join(SETTINGS)}.")
    said = setting == "true" if setting != "auto" else _named(topic)
    if not _has_projection(info):
        guess = (
            f"The images of {topic} count as rectified, and their camera_info has no P, which applies to "
            "these: K is taken. Calibrate the camera, or set the parameter rectified to false."
        )
        return Rectification(False, guess if said else "")
    if said is not None:
        return Rectification(said)
    if not _differ(info):
        return Rectification(False)
    k, p = np.asarray(info.k, float), np.asarray(info.p, float)
    return Rectification(
        False,
        f"The camera_info of {topic} has a focal length of {k[0]:.1f} pixels in K (raw images) and "
        f"{p[0]:.1f} in P (rectified images), and the topic's name does not say which image it is: K is "
        "taken. Set the parameter rectified to true or false.",
    )


def _named(topic: str) -> bool | None:
    """Whether a topic's name says that its images are rectified; None if it says nothing. RealSense calls a
    rectified image image_rect_raw."""
    *namespaces, last = topic.lower().removesuffix("/compressed").split("/")
    # From the last part outwards. A namespace may be a robot's name, in which "raw" is a word like others.
    for words, whole in [
        (_words(last), _words(last)),
        *((_words(name), {name}) for name in namespaces[::-1]),
    ]:
        if words & _RECTIFIED_WORDS:
            return True
        if whole & _RAW_WORDS:
            return False
    return None


def _words(name: str) -> set[str]:
    return set(re.split(r"[_\W]+", name))


def _has_projection(info: CameraInfo) -> bool:
    """Whether P is a pinhole projection; drivers without a calibration leave it zero."""
    p = np.asarray(info.p, float)
    return bool(p.size == 12 and np.isfinite(p).all() and p[0] > 0 and p[5] > 0)


def _differ(info: CameraInfo) -> bool:
    k, p = np.asarray(info.k, float), np.asarray(info.p, float)
    return bool(np.abs(k[[0, 2, 4, 5]] - p[[0, 2, 5, 6]]).max() > _SAME_PIXELS)
