"""Many goals behind one prefix as one packed sequence: which slot belongs to whom, where it stands and what
it may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray, IntArray

HIDDEN = float(np.finfo(np.float32).min)
"""What the mask adds to the score of a slot that may not be seen."""


@dataclass(frozen=True, eq=False)
class Packing:
    """The slots behind a prefix of `prefix` positions.

    owner: int64 T, the row each packed slot belongs to; lengths: int64 B, tokens of each row so far. A slot
    attends the whole prefix and the earlier slots of its own row, which is exact for a causal model, pads
    nothing and copies no prefix per goal.
    """

    prefix: int
    owner: IntArray
    lengths: IntArray

    @classmethod
    def behind(cls, prefix: int, rows: int) -> Packing:
        """No slot yet."""
        return cls(prefix, np.zeros(0, np.int64), np.zeros(rows, np.int64))

    def extended(self, owner: IntArray) -> tuple[Packing, IntArray, FloatArray]:
        """The packing with n new slots, slot i behind what row `owner[i]` holds so far; their positions,
        int64 n, and their mask, float32 n x (prefix + T + n), 0 where a slot may look and `HIDDEN` elsewhere.
        """
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
    """The row of every slot of some tails (L_i, D) laid end to end, int64 sum(L_i), and the last slot of
    each, int64 B.

    ValueError if there is no tail, or an empty one.
    """
    if not tails or min(len(tail) for tail in tails) == 0:
        raise ValueError("A branch needs at least one tail, and every tail at least one token.")
    counts = np.array([len(tail) for tail in tails], np.int64)
    return np.arange(len(tails), dtype=np.int64).repeat(counts), counts.cumsum() - 1


def check_append(rows: Sequence[int], tokens: Sequence[int]) -> None:
    """ValueError unless every row is named once, with one token."""
    if len(set(rows)) != len(rows) or len(rows) != len(tokens):
        raise ValueError("Append takes each row once, with one token.")


def causal_mask(length: int) -> FloatArray:
    """The mask of a prefix, float32 length x length."""
    return np.triu(np.full((length, length), HIDDEN, np.float32), 1)
