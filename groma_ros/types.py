"""The dataclasses that travel from a camera frame to a grounding. Boxes are xyxy in camera pixels everywhere
here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

GoalKind = Literal["auto", "one", "all", "describe", "chat"]
GOAL_KINDS: tuple[GoalKind, ...] = ("auto", "one", "all", "describe", "chat")

GroundingStatus = Literal["pending", "present", "absent", "ambiguous", "stale"]
"""What an answer says of its goal; see `Grounding.status`."""
GROUNDING_STATUSES: tuple[GroundingStatus, ...] = ("pending", "present", "absent", "ambiguous", "stale")

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics in pixels (sensor_msgs/CameraInfo K), for an image of width x height."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


@dataclass(frozen=True)
class Box3D:
    """An oriented box in a camera's optical frame (REP-103: x right, y down, z forward), metres.

    centre: its middle; quaternion: (x, y, z, w), turns the box's own axes into the frame's; size: extents
    along its own axes. Its own z points up, out of the surface that the object stands on, and its own x lies
    along the longer side.
    """

    centre: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """A place and a direction in a frame: metres, and a quaternion (x, y, z, w) from the pose's own axes to
    the frame's."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image. rgb: uint8 HxWx3; stamp: nanoseconds; depth: float32 HxW metres, registered to
    rgb."""

    rgb: NDArray[np.uint8]
    stamp: int = 0
    frame_id: str = ""
    depth: FloatArray | None = None
    intrinsics: Intrinsics | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """What the vision tokenizer saw in one frame: N regions in the order the language model names them.

    boxes: float32 Nx4 xyxy camera pixels; objectness: float32 N in 0..1; image_tokens: float32 TxD;
    region_tokens: float32 NxD; features: handle of the runtime's feature maps, for `VisionTokenizer.refer`.
    """

    boxes: FloatArray
    objectness: FloatArray
    image_tokens: FloatArray
    region_tokens: FloatArray
    features: Any
    width: int
    height: int
    stamp: int = 0
    frame_id: str = ""


@dataclass(frozen=True, eq=False)
class Goal:
    """A goal in words. min_score: detections below it are not returned; regions: float32 Mx4 user boxes,
    camera pixels."""

    text: str
    kind: GoalKind = "auto"
    min_score: float = 0.0
    regions: FloatArray | None = None


@dataclass(frozen=True)
class Detection:
    """One box of an answer. box: xyxy camera pixels; score: probability that the region belongs to the
    answer."""

    box: tuple[float, float, float, float]
    score: float
    region: int
    track_id: str = ""


@dataclass(frozen=True)
class TextSpan:
    """A phrase of an answer in words, text[start:end], and the indices of the regions it points at."""

    phrase: str
    start: int
    end: int
    regions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Grounding:
    """The answer to one goal."""

    goal: Goal
    detections: tuple[Detection, ...]
    """Boxes of the answer, best first; empty unless the status is present or ambiguous."""
    present: float
    """Probability that anything in the image fits the goal."""
    margin: float
    """Probability of the best region minus that of the runner-up."""
    text: str = ""
    """The answer in words, for goals of kind describe or chat."""
    spans: tuple[TextSpan, ...] = ()
    """Phrases of `text` and the regions they point at."""
    status: GroundingStatus = "present"
    """pending: not answered yet; present: the detections are the answer; absent: nothing in the image fits;
    ambiguous: one object is wanted and the runner-up is nearly as likely; stale: the answer is too old or its
    tracks are lost."""
    alternatives: tuple[Detection, ...] = ()
    """Runner-up boxes of an ambiguous answer, best first."""
