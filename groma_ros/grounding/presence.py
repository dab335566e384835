"""From the logits of the constrained answer to probabilities: which region, and whether anything fits at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from groma_ros.types import FloatArray


@dataclass(frozen=True)
class Calibration:
    """How a model's answer logits become probabilities. The defaults change nothing.

    temperature: divides the logits of regions and stop before the softmax; presence_scale, presence_bias: Platt's line on the
    log-odds of presence; answers_none: the model was trained to answer "nothing fits" by an empty list. Where it was not, its
    stop probability means nothing at the first step and presence is reported as 1.
    """

    temperature: float = 1.0
    presence_scale: float = 1.0
    presence_bias: float = 0.0
    answers_none: bool = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"The calibration temperature is {self.temperature}; it must be above 0.")

    @classmethod
    def from_manifest(cls, values: Mapping[str, Any]) -> Calibration:
        """The `calibration` of a bundle's manifest. Raises ValueError naming a key it does not know."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"The manifest's calibration has the unknown key {unknown[0]!r}.")
        return cls(**values)

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Softmax over the choices allowed at a step, float64; a choice that is not allowed has logit -inf.

        ValueError for logits that are not numbers, on which a constrained answer would never stop.
        """
        scaled = np.asarray(logits, np.float64) / self.temperature
        if not np.isfinite(scaled.max()):
            raise ValueError("The model's answer is not a number: its network config or its precision does not fit its weights.")
        weights = np.exp(scaled - scaled.max())
        return weights / weights.sum()

    def presence(self, stop: float) -> float:
        """Probability that anything fits the goal, from the probability of stopping before the first region."""
        if not self.answers_none:
            return 1.0
        stop = float(np.clip(stop, 1e-12, 1 - 1e-12))
        odds = self.presence_scale * np.log((1 - stop) / stop) + self.presence_bias
        return float(1 / (1 + np.exp(-odds)))
