"""Pack many goals after one prefix into one sequence: row, position and mask of every slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray, IntArray

HIDDEN = float(np.finfo(np.float32).min)
"""Added to the attention score of a slot that is masked."""


@dataclass(frozen=True, eq=False)
class Packing:
    """The slots after a prefix.

    A slot attends to the whole prefix and to earlier slots of its own row. That is exact for a causal model,
    needs no padding and copies no prefix.
    """

    prefix: int
    """Positions of the prefix."""
    owner: IntArray
    """int64 T: row of each packed slot."""
    lengths: IntArray
    """int64 B: tokens of each row so far."""

    @classmethod
    def behind(cls, prefix: int, rows: int) -> Packing:
        """An empty packing."""
        return cls(prefix, np.zeros(0, np.int64), np.zeros(rows, np.int64))

    def extended(self, owner: IntArray) -> tuple[Packing, IntArray, FloatArray]:
        """Add n slots, slot i after the current end of row `owner[i]`. Returns the packing, the positions of
        the new slots (int64 n) and their mask (float32 n x (prefix + T + n)): 0 where a slot may attend,
        `HIDDEN` elsewhere."""
        slots = np.concatenate([self.owner, owner])
        index = np.arange(len(slots))
        own: NDArray[np.bool_] = (slots[None] == owner[:, None]) & (
            index[None] <= index[len(self.owner) :, None]
        )
        within = own[:, len(self.owner) :].sum(1) - 1
        mask = np.zeros((len(owner), self.prefix + len(slots)), np.float32)
        mask[:, self.prefix :][~own] = HIDDEN
        lengths = self.lengths + np.bincount(owner, minlength=len(self.lengths))
        return Packing(self.prefix, slots, lengths), self.prefix + self.lengths[owner] + within, mask


def owners(tails: Sequence[FloatArray]) -> tuple[IntArray, IntArray]:
    """For concatenated tails (L_i, D), the row of every slot (int64 sum(L_i)) and the last slot of each tail
    (int64 B).

    Raises ValueError if there is no tail, or an empty one.
    """
    if not tails or min(len(tail) for tail in tails) == 0:
        raise ValueError("A branch needs at least one tail, and every tail at least one token.")
    counts = np.array([len(tail) for tail in tails], np.int64)
    return np.arange(len(tails), dtype=np.int64).repeat(counts), counts.cumsum() - 1


def check_append(rows: Sequence[int], tokens: Sequence[int]) -> None:
    """Raise ValueError unless every row is named at most once, with one token each."""
    if len(set(rows)) != len(rows) or len(rows) != len(tokens):
        raise ValueError("Append takes each row once, with one token.")


def causal_mask(length: int) -> FloatArray:
    """The mask of a prefix, float32 length x length."""
    return np.triu(np.full((length, length), HIDDEN, np.float32), 1)
