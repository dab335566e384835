"""The interface every vision runtime implements."""

from __future__ import annotations

from typing import Protocol

from groma_ros.image import ImageTransform
from groma_ros.selection import Selection, SelectionRule, select_regions
from groma_ros.types import FloatArray, Frame, Scene

__all__ = ["ImageTransform", "Selection", "SelectionRule", "VisionTokenizer", "select_regions"]


class VisionTokenizer(Protocol):
    """Finds and encodes regions without knowing the goal."""

    def encode(self, frame: Frame) -> Scene:
        """One vision pass over a frame. Raises ValueError with a sentence for an image it cannot take."""
        ...

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """The scene with user boxes (Mx4 xyxy camera pixels) joined to the proposals, through the same selection."""
        ...
