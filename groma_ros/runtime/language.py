"""The interface every language runtime implements: one prefix per scene, every goal a branch of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from groma_ros.types import FloatArray, IntArray


class LanguageModel(Protocol):
    """A causal language model whose prefix is embeddings and whose goals are token ids."""

    width: int

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids (new tokens included): (N,) to (N, D)."""
        ...

    def prefill(self, embeddings: FloatArray) -> Any:
        """Run the goal-independent prefix (P, D) once; the handle it returns is shared by all goals of the scene."""
        ...

    def branch(self, prefix: Any, tails: Sequence[IntArray]) -> tuple[Any, FloatArray]:
        """Continue the prefix with each tail in one batch. Returns the branches and the logits (B, V) after each tail's end."""
        ...

    def append(self, branches: Any, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Add one token to each of the named rows of the branches; logits (len(rows), V) after it."""
        ...

    def release(self, prefix: Any) -> None:
        """Free what the prefix holds."""
        ...
