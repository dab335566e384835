"""Interfaces that every runtime implements: a vision tokenizer, and a language model with one prefix for each
scene and one branch for each goal."""

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
        """Encode a frame. Raises ValueError for an image that cannot be used."""
        ...

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """Add user boxes (Mx4 xyxy, camera pixels) to the proposals of a scene and select regions again."""
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
    """Build the scene of the selected regions. size: width and height of the camera image, pixels."""
    boxes = clip_xyxy(cxcywh_to_xyxy(chosen.boxes, *size), *size)
    return Scene(boxes, chosen.scores, image_tokens, region_tokens, features, *size, stamp, frame_id)


class LanguageModel(Protocol):
    """A causal language model that takes embeddings and returns logits."""

    width: int
    """D, the size of an embedding."""
    context: int
    """Longest sequence (prefix, tail and answer together)."""
    base_vocabulary: int
    """Tokens of the base language model."""
    vocabulary: int
    """V, including Groma's added tokens."""

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids: (N,) to (N, D)."""
        ...

    def prefill(self, embeddings: FloatArray) -> Any:
        """Run the goal-independent prefix (P, D). Returns a handle that all goals of the scene share."""
        ...

    def branch(self, prefix: Any, tails: Sequence[FloatArray]) -> tuple[Any, FloatArray]:
        """Continue the prefix with each tail (L_i, D) in one batch. Tails are embeddings because they can
        contain region features.

        Returns the branches and the logits (B, V) after the end of each tail. The prefix is not changed.
        """
        ...

    def append(self, branches: Any, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Append one token to each of the given rows. Returns the logits (len(rows), V) after it."""
        ...

    def release(self, prefix: Any) -> None:
        """Free the prefix."""
        ...
