"""Decode a language model's answers: constrained to the regions of the scene, or free text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.grounding.calibration import Calibration, ProbeBatch, log_odds
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.types import FloatArray


@dataclass(frozen=True)
class RegionTokens:
    """Token ids of a constrained answer."""

    first: int
    """Id of `<r0>`."""
    count: int
    """Number of regions of the scene."""
    stop: int
    """Id of `</roi>`."""

    def choices(self, logits: FloatArray) -> FloatArray:
        """Select the logits (count + 1,) of the regions and, last, of the stop from the logits (V,) of one
        position."""
        found = np.empty(self.count + 1, np.float32)
        found[:-1], found[-1] = logits[self.first : self.first + self.count], logits[self.stop]
        return found


@dataclass(frozen=True, eq=False)
class RegionAnswer:
    """One goal's answer over N regions."""

    regions: tuple[int, ...]
    """Indices of the chosen regions, in the order they were chosen."""
    scores: tuple[float, ...]
    """Probability of each chosen region at the step it was chosen."""
    membership: NDArray[Any]
    """float64 N: each region's highest probability at any step."""
    present: float
    """Probability that anything fits the goal."""
    margin: float
    """Probability of the best region minus the runner-up's at the first step; the best's own if there is one
    region."""
    signals: Mapping[str, float] = field(default_factory=dict)
    """Log-odds from which presence was computed, before calibration: `stop`, the log-odds of stopping at
    once, and the requested ones of `calibration.SIGNALS`."""
    first: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    """float64 N: probability of each region at the first step, from which `margin` is computed."""


class _Row:
    """State of one goal's constrained answer."""

    def __init__(
        self, single: bool, tokens: RegionTokens, calibration: Calibration, min_presence: float
    ) -> None:
        self.single = single
        self._tokens = tokens
        self._calibration = calibration
        self._min_presence = min_presence
        self._free = np.ones(tokens.count + 1, bool)
        self._membership: NDArray[Any] = np.zeros(tokens.count)
        self._picked: list[tuple[int, float]] = []
        self._signals: Mapping[str, float] = {}
        self._first: NDArray[Any] = np.zeros(tokens.count)
        self._present = self._margin = 0.0

    def step(self, logits: FloatArray, signals: Mapping[str, float]) -> int | None:
        """Process the logits (V,) of a position. Returns the chosen token, or None when the answer is
        complete.

        signals: presence signals of the first step.
        """
        choices = np.where(self._free, self._tokens.choices(logits), -np.inf)
        chances = self._calibration.probabilities(choices)
        regions = chances[:-1]
        np.maximum(self._membership, regions, out=self._membership)
        best = int(regions.argmax())
        if not self._picked:
            self._signals = {"stop": float(log_odds(chances[-1])), **signals}
            self._present = self._calibration.presence(float(chances[-1]), signals)
            self._first = regions.copy()
            others = regions.copy()
            others[best] = 0.0
            self._margin = float(regions[best] - others.max())
            stop = self._present < self._min_presence
        else:
            # On a tie the stop wins, so equal logits never add a region.
            stop = bool(chances[-1] >= regions[best])
        if stop:
            return None
        self._free[best] = False
        self._picked.append((best, float(regions[best])))
        return None if self.single else self._tokens.first + best

    def answer(self) -> RegionAnswer:
        regions = tuple(index for index, _ in self._picked)
        scores = tuple(float(self._calibration.score(chance)) for _, chance in self._picked)
        membership = self._calibration.score(self._membership)
        return RegionAnswer(
            regions, scores, membership, self._present, self._margin, self._signals, self._first
        )


def choose_regions(
    language: LanguageModel,
    prefix: Any,
    tails: Sequence[FloatArray],
    single: Sequence[bool],
    tokens: RegionTokens,
    calibration: Calibration,
    min_presence: float,
    prompts: ProbeBatch | None = None,
) -> list[RegionAnswer]:
    """Answer goals whose tails (L_i, D) end with the forced `<roi>`, all in one batch after the shared
    prefix.

    At the first step presence decides between "nothing" (below min_presence) and the best region. Goals that
    are not `single` continue greedily among the regions not yet chosen and the stop; complete goals leave the
    batch. prompts: prompts for presence signals, evaluated in the same batch.
    """
    beside = prompts or ProbeBatch()
    branches, logits = language.branch(prefix, [*tails, *beside.nulls, *beside.probes])
    rows = [_Row(one, tokens, calibration, min_presence) for one in single]
    signals: list[dict[str, float]] = [{} for _ in rows]
    if prompts is not None:
        regions = np.asarray(logits)[:, tokens.first : tokens.first + tokens.count]
        signals = prompts.read(regions[: len(rows)], regions[len(rows) :], np.asarray(logits)[len(rows) :])
    active = list(range(len(rows)))
    while active:
        chosen = [rows[index].step(logits[place], signals[index]) for place, index in enumerate(active)]
        going = [(index, token) for index, token in zip(active, chosen, strict=True) if token is not None]
        active = [index for index, _ in going]
        if going:
            logits = language.append(branches, active, [token for _, token in going])
    return [row.answer() for row in rows]


@dataclass(frozen=True)
class Written:
    """A free answer."""

    ids: tuple[int, ...]
    """Tokens before the end."""
    chances: tuple[float, ...]
    """Probability of each token when it was chosen."""


def write(
    language: LanguageModel,
    prefix: Any,
    tails: Sequence[FloatArray],
    end: int,
    limit: int,
    banned: Sequence[int] = (),
) -> list[Written]:
    """Continue each tail (L_i, D) greedily until the token `end` or for `limit` tokens; ids in `banned` are
    never chosen."""
    branches, logits = language.branch(prefix, tails)
    written: list[list[tuple[int, float]]] = [[] for _ in tails]
    active = list(range(len(tails)))
    while active:
        going: list[tuple[int, int]] = []
        for row, line in zip(active, logits, strict=True):
            token, chance = _best(line, banned)
            if token != end:
                written[row].append((token, chance))
                if len(written[row]) < limit:
                    going.append((row, token))
        active = [row for row, _ in going]
        if going:
            logits = language.append(branches, active, [token for _, token in going])
    return [
        Written(tuple(token for token, _ in line), tuple(chance for _, chance in line)) for line in written
    ]


def _best(logits: FloatArray, banned: Sequence[int]) -> tuple[int, float]:
    allowed = np.asarray(logits, np.float64).copy()
    allowed[list(banned)] = -np.inf
    token = int(allowed.argmax())
    return token, float(1 / np.exp(allowed - allowed[token]).sum())
