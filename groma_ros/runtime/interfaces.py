"""The interface every language runtime implements: one prefix per scene, every goal a branch of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from groma_ros.boxes import clip_xyxy, cxcywh_to_xyxy
from groma_ros.preprocessing import ImageTransform
from groma_ros.proposal_selection import Selection, SelectionRule, select_regions
from groma_ros.timing import stage
from groma_ros.types import FloatArray, Frame, IntArray, Scene

__all__ = ["ImageTransform", "Selection", "SelectionRule", "VisionTokenizer", "make_scene", "select_regions"]


class VisionTokenizer(Protocol):
    """Finds and encodes regions without knowing the goal."""

    def encode(self, frame: Frame) -> Scene:
        """One vision pass over a frame. Raises ValueError with a sentence for an image it cannot take."""
        ...

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """The scene with user boxes (Mx4 xyxy camera pixels) joined to the proposals, through the same
        selection."""
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
    """A scene of the chosen regions. size: width and height of the camera image, in whose pixels the scene's
    boxes are."""
    boxes = clip_xyxy(cxcywh_to_xyxy(chosen.boxes, *size), *size)
    return Scene(boxes, chosen.scores, image_tokens, region_tokens, features, *size, stamp, frame_id)


class LanguageModel(Protocol):
    """A causal language model that reads embeddings and gives logits over the vocabulary and the new tokens.

    width: D, the size of an embedding; context: the longest sequence (prefix, tail and answer together) it
    can hold; base_vocabulary: the tokens of the language model it was made of; vocabulary: V, with the new
    ones.
    """

    width: int
    context: int
    base_vocabulary: int
    vocabulary: int

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids (new tokens included): (N,) to (N, D)."""
        ...

    def prefill(self, embeddings: FloatArray) -> Any:
        """Run the goal-independent prefix (P, D) once; the handle it returns is shared by all goals of the
        scene."""
        ...

    def branch(self, prefix: Any, tails: Sequence[FloatArray]) -> tuple[Any, FloatArray]:
        """Continue the prefix with each tail (L_i, D) in one batch; tails are embeddings because a region
        feature can stand in them. Returns the branches and the logits (B, V) after each tail's end. The
        prefix stays as it was.
        """
        ...

    def append(self, branches: Any, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Add one token to each of the named rows of the branches; logits (len(rows), V) after it."""
        ...

    def release(self, prefix: Any) -> None:
        """Free what the prefix holds."""
        ...
