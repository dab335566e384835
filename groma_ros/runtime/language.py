"""The interface every language runtime implements: one prefix per scene, every goal a branch of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from groma_ros.types import FloatArray, IntArray


class LanguageModel(Protocol):
    """A causal language model that reads embeddings and gives logits over the vocabulary and the new tokens.

    width: D, the size of an embedding; context: the longest sequence (prefix, tail and answer together) it can hold;
    base_vocabulary: the tokens of the language model it was made of; vocabulary: V, with the new ones.
    """

    width: int
    context: int
    base_vocabulary: int
    vocabulary: int

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids (new tokens included): (N,) to (N, D)."""
        ...

    def prefill(self, embeddings: FloatArray) -> Any:
        """Run the goal-independent prefix (P, D) once; the handle it returns is shared by all goals of the scene."""
        ...

    def branch(self, prefix: Any, tails: Sequence[FloatArray]) -> tuple[Any, FloatArray]:
        """Continue the prefix with each tail (L_i, D) in one batch; tails are embeddings because a region feature can stand in
        them. Returns the branches and the logits (B, V) after each tail's end. The prefix stays as it was.
        """
        ...

    def append(self, branches: Any, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Add one token to each of the named rows of the branches; logits (len(rows), V) after it."""
        ...

    def release(self, prefix: Any) -> None:
        """Free what the prefix holds."""
        ...
