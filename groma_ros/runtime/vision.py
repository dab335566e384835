"""The interface every vision runtime implements."""

from __future__ import annotations

from typing import Any, Protocol

from groma_ros.geometry import clip_xyxy, cxcywh_to_xyxy
from groma_ros.image import ImageTransform
from groma_ros.selection import Selection, SelectionRule, select_regions
from groma_ros.timing import stage
from groma_ros.types import FloatArray, Frame, Scene

__all__ = ["ImageTransform", "Selection", "SelectionRule", "VisionTokenizer", "make_scene", "select_regions"]


class VisionTokenizer(Protocol):
    """Finds and encodes regions without knowing the goal."""

    def encode(self, frame: Frame) -> Scene:
        """One vision pass over a frame. Raises ValueError with a sentence for an image it cannot take."""
        ...

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """The scene with user boxes (Mx4 xyxy camera pixels) joined to the proposals, through the same selection."""
        ...


@stage("scene")
def make_scene(
    chosen: Selection,
    region_tokens: FloatArray,
    image_tokens: FloatArray,
    features: Any,
    size: tuple[int, int],
    stamp: int,
    frame_id: str,
) -> Scene:
    """A scene of the chosen regions. size: width and height of the camera image, in whose pixels the scene's boxes are."""
    boxes = clip_xyxy(cxcywh_to_xyxy(chosen.boxes, *size), *size)
    return Scene(boxes, chosen.scores, image_tokens, region_tokens, features, *size, stamp, frame_id)
