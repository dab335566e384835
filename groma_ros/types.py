"""Dataclasses passed from a camera frame to a grounding. Boxes are xyxy in camera pixels throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

GoalKind = Literal["auto", "one", "all", "describe", "chat"]
GOAL_KINDS: tuple[GoalKind, ...] = ("auto", "one", "all", "describe", "chat")

GroundingStatus = Literal["pending", "present", "absent", "ambiguous", "stale"]
"""Status of an answer; see `Grounding.status`."""

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
    """An oriented box in a camera's optical frame (REP-103: x right, y down, z forward).

    Its own z axis points up, away from the surface the object stands on; its own x axis lies along the longer
    side.
    """

    centre: tuple[float, float, float]
    """Metres."""
    quaternion: tuple[float, float, float, float]
    """(x, y, z, w): rotation from the box's axes to the frame's."""
    size: tuple[float, float, float]
    """Extents along the box's own axes, metres."""


@dataclass(frozen=True)
class Pose:
    """A position and an orientation in a frame."""

    position: tuple[float, float, float]
    """Metres."""
    quaternion: tuple[float, float, float, float]
    """(x, y, z, w): rotation from the pose's own axes to the frame's."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image."""

    rgb: NDArray[np.uint8]
    """uint8 HxWx3."""
    stamp: int = 0
    """Nanoseconds."""
    frame_id: str = ""
    depth: FloatArray | None = None
    """float32 HxW, metres, registered to rgb; NaN where unknown."""
    intrinsics: Intrinsics | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """Result of the vision tokenizer for one frame: N regions, in the order of their names `<r0>`, `<r1>`,
    ..."""

    boxes: FloatArray
    """float32 Nx4 xyxy, camera pixels."""
    objectness: FloatArray
    """float32 N in 0..1."""
    image_tokens: FloatArray
    """float32 TxD."""
    region_tokens: FloatArray
    """float32 NxD."""
    features: Any
    """Handle of the runtime's feature maps, for `VisionTokenizer.refer`."""
    width: int
    """Of the camera image, pixels; likewise height."""
    height: int
    stamp: int = 0
    frame_id: str = ""


@dataclass(frozen=True, eq=False)
class Goal:
    """A goal in words."""

    text: str
    kind: GoalKind = "auto"
    """auto: the model decides how many objects; one: a single object; all: every matching object; describe,
    chat: an answer in words."""
    min_score: float = 0.0
    """Detections with a lower score are not returned."""
    regions: FloatArray | None = None
    """float32 Mx4 xyxy boxes drawn by the user, camera pixels."""


@dataclass(frozen=True)
class Detection:
    """One box of an answer."""

    box: tuple[float, float, float, float]
    """xyxy, camera pixels."""
    score: float
    """Probability that the region belongs to the answer."""
    region: int
    """Index into the scene's regions."""
    track_id: str = ""
    """Empty if the detection is not tracked."""


@dataclass(frozen=True)
class TextSpan:
    """A phrase of an answer in words and the regions it refers to."""

    phrase: str
    start: int
    """The phrase is text[start:end]."""
    end: int
    regions: tuple[int, ...]
    """Indices into the scene's regions."""


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
    """Phrases of `text` and the regions they refer to."""
    status: GroundingStatus = "present"
    """pending: not answered yet; present: the detections are the answer; absent: nothing in the image fits;
    ambiguous: one object is wanted and the runner-up is nearly as likely; stale: the answer is too old or its
    tracks are lost."""
    alternatives: tuple[Detection, ...] = ()
    """Runner-up boxes of an ambiguous answer, best first."""

    @property
    def boxes(self) -> FloatArray:
        """The boxes of the detections, float32 Nx4 xyxy camera pixels."""
        return np.array([item.box for item in self.detections], np.float32).reshape(-1, 4)

    @property
    def scores(self) -> FloatArray:
        """The scores of the detections, float32 N in 0..1."""
        return np.array([item.score for item in self.detections], np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The answer in plain Python types, as `groma ground --json` writes it.

        Boxes are rounded to a hundredth of a pixel, probabilities to four places.
        """
        document: dict[str, Any] = {
            "goal": self.goal.text,
            "status": self.status,
            "present": round(float(self.present), 4),
            "margin": round(float(self.margin), 4),
            "detections": [
                {"box": [round(float(value), 2) for value in item.box], "score": round(float(item.score), 4)}
                for item in self.detections
            ],
        }
        return document | ({"text": self.text} if self.text else {})

    def to_supervision(self) -> Any:
        """The detections as `supervision.Detections`, with the goal's text as class name of each.

        Raises ImportError if the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision needs the package: python -m pip install supervision"
            ) from error
        count = len(self.detections)
        ids = [item.track_id for item in self.detections]
        tracked = bool(ids) and all(name.isdecimal() for name in ids)
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=np.zeros(count, np.int64),
            tracker_id=np.array([int(name) for name in ids], np.int64) if tracked else None,
            data={"class_name": np.array([self.goal.text] * count, dtype=np.str_)},
        )
