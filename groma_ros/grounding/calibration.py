"""Turn the logits of a constrained answer into probabilities: of each region, and that anything fits the
goal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text
from groma_ros.types import FloatArray

SIGNALS = ("confidence", "margin", "contrast", "height", "probe")
"""Evidence of presence in a model that was not trained to answer "nothing fits"; see `region_signals` and
`probe_signal`."""
FITTED = "fitted"  # Manifest key beside the fields: one line that names the data they were fitted on.
PRECISIONS = "precisions"  # Manifest key beside the fields: fields that differ, by precision.
_LEAST = 1e-12


@dataclass(frozen=True)
class Calibration:
    """How a model's answer logits become probabilities. The defaults leave them unchanged."""

    temperature: float = 1.0
    """Divides the logits of regions and stop before the softmax."""
    presence_scale: float = 1.0
    """Platt scaling of the log-odds of presence: scale * log-odds + bias."""
    presence_bias: float = 0.0
    answers_none: bool = True
    """The model was trained to answer "nothing fits" with an empty list. If not, its probability of stopping
    at the first step is meaningless, and presence comes from `signals`."""
    score_scale: float = 1.0
    """Platt scaling of the log-odds of a box's score."""
    score_bias: float = 0.0
    signals: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Weights by name (see `SIGNALS`): the log-odds of presence are presence_bias plus the weighted sum.
    Without any, presence is 1. Used only if answers_none is false."""
    null_goals: tuple[str, ...] = ("object", "thing", "something", "anything")
    """Texts that fit any object, to which the signals `contrast` and `height` compare a goal."""

    def __post_init__(self) -> None:
        numbers = ("temperature", "presence_scale", "presence_bias", "score_scale", "score_bias")
        given = {name: getattr(self, name) for name in numbers}
        if not isinstance(self.signals, Mapping):
            raise ValueError(f"The calibration's signals are {self.signals!r}; they must be weights by name.")
        for name, value in (
            *given.items(),
            *((f"signals.{key}", weight) for key, weight in self.signals.items()),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(
                    f"The calibration's {name} is {str(value)[:40]!r}; it must be a finite number."
                )
        if not isinstance(self.answers_none, bool):
            raise ValueError(
                f"The calibration's answers_none is {self.answers_none!r}; it must be true or false."
            )
        if not self.temperature > 0:
            raise ValueError(f"The calibration temperature is {self.temperature}; it must be above 0.")
        if not self.presence_scale > 0:
            raise ValueError(
                f"The calibration presence_scale is {self.presence_scale}; it must be above 0, or goals that "
                "are there would be called absent."
            )
        if not self.score_scale > 0:
            raise ValueError(
                f"The calibration score_scale is {self.score_scale}; it must be above 0, or better boxes "
                "would score less."
            )
        unknown = sorted(set(self.signals) - set(SIGNALS))
        if unknown:
            raise ValueError(
                f"The calibration has the unknown signal {unknown[0]!r}; known are {', '.join(SIGNALS)}."
            )
        if (
            not isinstance(self.null_goals, tuple)
            or not self.null_goals
            or not all(isinstance(text, str) and text.strip() for text in self.null_goals)
        ):
            raise ValueError(
                f"The calibration's null_goals are {self.null_goals!r}; they must be a list of at least one "
                "text."
            )

    @classmethod
    def from_manifest(cls, values: Mapping[str, Any], precision: str = "") -> Calibration:
        """Read the `calibration` of a bundle's manifest for the precision that runs. Raises ValueError naming
        an unknown key."""
        if not isinstance(values, Mapping):
            raise ValueError("The manifest's calibration must be a mapping from names to values.")
        own = values.get(PRECISIONS, {})
        differing = own.get(precision, {}) if isinstance(own, Mapping) else None
        if not isinstance(differing, Mapping):
            raise ValueError(
                f"The calibration's {PRECISIONS} must be a mapping from precision to a mapping of values."
            )
        merged = {**values, **differing}
        read = {key: value for key, value in merged.items() if key not in (FITTED, PRECISIONS)}
        unknown = sorted(set(read) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"The manifest's calibration has the unknown key {unknown[0]!r}.")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in read.items()
        }
        return cls(**given)

    def to_manifest(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain JSON types, for `from_manifest`."""
        neutral = Calibration()
        changed = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != getattr(neutral, item.name)
        }
        plain = {"signals": dict, "null_goals": list}
        return {name: plain.get(name, lambda same: same)(value) for name, value in changed.items()}

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Softmax over the choices allowed at a step, float64; a choice that is not allowed has logit -inf.

        Raises ValueError for NaN or +inf logits, with which a constrained answer would never stop.
        """
        scaled = np.asarray(logits, np.float64) / self.temperature
        if not np.isfinite(scaled.max()):
            raise ValueError(
                "The model's answer is not a number: its network config or its precision does not fit its "
                "weights."
            )
        weights = np.exp(scaled - scaled.max())
        probabilities: FloatArray = weights / weights.sum()
        return probabilities

    def presence(self, stop: float, signals: Mapping[str, float] | None = None) -> float:
        """Probability that anything fits the goal.

        stop: probability of stopping before the first region; signals: used instead if answers_none is false.
        """
        if self.answers_none:
            return float(sigmoid(self.presence_bias - self.presence_scale * log_odds(stop)))
        if not self.signals:
            return 1.0
        said = signals or {}
        return float(
            sigmoid(self.presence_bias + sum(weight * said[name] for name, weight in self.signals.items()))
        )

    def score(self, chance: NDArray[Any] | float) -> NDArray[Any]:
        """Calibrated probability that a region belongs to the answer, from the probability with which it was
        chosen; a number or an array."""
        if (self.score_scale, self.score_bias) == (1.0, 0.0):
            return np.asarray(chance)
        return sigmoid(self.score_scale * log_odds(np.asarray(chance)) + self.score_bias)


@overload
def log_odds(chance: float) -> float: ...
@overload
def log_odds(chance: NDArray[Any]) -> NDArray[Any]: ...
def log_odds(chance: NDArray[Any] | float) -> NDArray[Any] | float:
    """log(p / (1 - p)), float64, with p clipped to 1e-12 from 0 and 1."""
    # Called for every goal of every frame; an array with one element takes ten times as long.
    if isinstance(chance, float):
        kept = min(max(chance, _LEAST), 1 - _LEAST)
        return math.log(kept) - math.log1p(-kept)
    clipped = np.clip(np.asarray(chance, np.float64), _LEAST, 1 - _LEAST)
    odds: NDArray[Any] = np.log(clipped) - np.log1p(-clipped)
    return odds


@overload
def sigmoid(value: float) -> float: ...
@overload
def sigmoid(value: NDArray[Any]) -> NDArray[Any]: ...
def sigmoid(value: NDArray[Any] | float) -> NDArray[Any] | float:
    """1 / (1 + exp(-x)), float64, without overflow."""
    if isinstance(value, float):
        tiny = math.exp(-abs(value))
        return 1 / (1 + tiny) if value >= 0 else tiny / (1 + tiny)
    value = np.asarray(value, np.float64)
    small = np.exp(-np.abs(value))
    return np.where(value >= 0, 1 / (1 + small), small / (1 + small))


PROBE = "probe"  # kind of query with a yes-or-no answer
NEEDS_NULLS = frozenset({"contrast", "height"})
_LARGEST = 30.0


@dataclass(frozen=True)
class ProbeTokens:
    """Where and how a yes-or-no probe is answered."""

    lead: tuple[int, ...]
    """Ids that both answers start with; they follow the question."""
    yes: int
    """First id in which the answers differ; likewise `no`."""
    no: int


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """Prompts evaluated beside G goals in the same batch, to compute their presence signals."""

    nulls: Sequence[FloatArray] = ()
    """Tails (L_i, D) of goals that fit anything."""
    probes: Sequence[FloatArray] = ()
    """Tails of yes-or-no questions: one for each goal, or none."""
    tokens: ProbeTokens | None = None
    """Where the probes are answered."""

    def read(self, goals: FloatArray, prompts: FloatArray, vocabulary: FloatArray) -> list[dict[str, float]]:
        """The signals of each goal.

        goals: logits (G, N) of the scene's regions; prompts: logits (A, N) of the null goals, then of the
        probes; vocabulary: the logits (A, V) of the same rows over all tokens.
        """
        count = len(self.nulls)
        signals = [region_signals(line, prompts[:count]) for line in goals]
        for found, line in zip(signals, vocabulary[count:]):
            if self.tokens is not None:
                found[PROBE] = probe_signal(line, self.tokens)
        return signals


def region_signals(regions: FloatArray, nulls: FloatArray) -> dict[str, float]:
    """Presence signals of one goal, in nats.

    regions: logits (N,) of the scene's regions for the goal; nulls: the same (K, N) for K goals that fit
    anything.

    confidence: log-odds of the best region among the regions. margin: its logit minus the runner-up's.
    contrast: how much likelier it is among the regions than under the null goals. height: how much higher the
    log-sum-exp of all regions is than under the null goals. The last two are left out if K = 0.
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
    """Find the first tokens in which the answers Yes and No to a probe differ."""
    behind = template.goal.split("{}")[1]
    asked, yes, no = (tokenizer.encode_parts([Text(behind + answer, True)]) for answer in ("", " Yes", " No"))
    place = next(index for index, pair in enumerate(zip(yes, no)) if pair[0] != pair[1])
    return ProbeTokens(tuple(yes[len(asked) : place]), yes[place], no[place])


def _log_sum(logits: NDArray[Any]) -> NDArray[Any]:
    top = logits.max(-1, keepdims=True)
    total: NDArray[Any] = (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[..., 0]
    return total


def _log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    normalised: NDArray[Any] = logits - _log_sum(logits)[..., None]
    return normalised
