"""Signs of presence in a model that never learned to answer "nothing fits", read behind the same prefix as its answer.

A published Groma always names a region. Whether the goal is there at all shows in how sure it is of that region and how far the
region stands out from what it names when asked for just anything; and it can be asked in words, with yes or no.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groma_ros.grounding.presence import log_odds
from groma_ros.prompts import PromptTemplate
from groma_ros.tokenizer import GromaTokenizer, Text
from groma_ros.types import FloatArray

PROBE = "probe"  # the kind of query that is answered yes or no
NEEDS_NULLS = frozenset({"contrast", "height"})
_LARGEST = 30.0


@dataclass(frozen=True)
class ProbeTokens:
    """Where a probe is answered. lead: ids that yes and no begin with alike, which follow the question; yes, no: those that differ."""

    lead: tuple[int, ...]
    yes: int
    no: int


@dataclass(frozen=True, eq=False)
class Asides:
    """What is asked beside G goals, in the same batch. nulls: tails (L_i, D) of goals that fit anything; probes: one tail a goal, or
    none; tokens: where the probes are answered."""

    nulls: Sequence[FloatArray] = ()
    probes: Sequence[FloatArray] = ()
    tokens: ProbeTokens | None = None

    def read(self, goals: FloatArray, asides: FloatArray, vocabulary: FloatArray) -> list[dict[str, float]]:
        """The signals of each goal. goals: logits (G, N) of the scene's regions; asides: those (A, N) of the nulls, then of the probes;
        vocabulary: the same rows as asides, over all tokens (A, V)."""
        count = len(self.nulls)
        signals = [region_signals(line, asides[:count]) for line in goals]
        for found, line in zip(signals, vocabulary[count:]):
            if self.tokens is not None:
                found[PROBE] = probe_signal(line, self.tokens)
        return signals


def region_signals(regions: FloatArray, nulls: FloatArray) -> dict[str, float]:
    """Signals of one goal from the logits (N,) of the scene's regions, and those (K, N) they have under K goals that fit anything.

    All in nats. confidence: log-odds of the best region among the regions; margin: its logit minus the runner-up's; contrast: how much
    likelier it is among the regions than under the null goals; height: how much higher the regions stand together (log of the summed
    exponentials) than under the null goals. Without nulls (K = 0) the last two are left out.
    """
    logits = np.asarray(regions, np.float64)
    chances = _log_softmax(logits)
    best = int(logits.argmax())
    ranked = np.sort(logits)
    signals = {
        "confidence": float(log_odds(np.exp(chances[best]))),
        "margin": min(float(ranked[-1] - ranked[-2]), _LARGEST) if len(ranked) > 1 else _LARGEST,
    }
    if len(nulls):
        anything = np.asarray(nulls, np.float64)
        signals["contrast"] = float(chances[best] - _log_softmax(anything)[:, best].mean())
        signals["height"] = float(_log_sum(logits) - _log_sum(anything).mean())
    return signals


def probe_signal(logits: FloatArray, tokens: ProbeTokens) -> float:
    """Log-odds of yes against no, from the logits (V,) where the answer starts."""
    return float(logits[tokens.yes]) - float(logits[tokens.no])


def probe_tokens(tokenizer: GromaTokenizer, template: PromptTemplate) -> ProbeTokens:
    """The first tokens in which Yes and No differ where the answer to a probe starts."""
    behind = template.goal.split("{}")[1]
    asked, yes, no = (tokenizer.encode_parts([Text(behind + answer, True)]) for answer in ("", " Yes", " No"))
    place = next(index for index, pair in enumerate(zip(yes, no)) if pair[0] != pair[1])
    return ProbeTokens(tuple(yes[len(asked) : place]), yes[place], no[place])


def _log_sum(logits: np.ndarray) -> np.ndarray:
    top = logits.max(-1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[..., 0]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - _log_sum(logits)[..., None]
