"""Distance of a picture and of the words of a goal from a model's training data.

A picture is judged by the mean of its image tokens. The principal components of that mean over training
pictures span the usual range; the distance of a picture is its Mahalanobis distance within that span plus the
reconstruction error, as in principal component anomaly detection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groma_ros.errors import printable
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.types import FloatArray, Scene

FILE = "familiarity.npy"
COMPONENTS = 32
FEWEST = 4 * COMPONENTS
"""Minimum number of pictures for `fit`."""
USUAL_SHARE = 0.99
"""Share of held-out pictures below the limit."""
_WORD = re.compile(r"[^\W\d_]+")
_LEAST = 1e-4
"""Lower bound of variances, residual and limit: for pictures that hardly differ, or with fewer features than
components, they would be 0."""
_SPREAD = 1e-6
"""Added to standard deviations, to avoid division by 0 for a constant feature."""


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Statistics of a model's training data."""

    mean: FloatArray
    """(D,) mean of the pictures' mean image tokens."""
    scale: FloatArray
    """(D,) standard deviations of the same."""
    components: FloatArray
    """(K, D) orthonormal principal directions of the standardised means, by falling variance."""
    variances: FloatArray
    """(K,) variances along the directions."""
    residual: float
    """Mean squared reconstruction error."""
    limit: float
    """Distance up to which a picture counts as usual."""
    words: frozenset[str]
    """Lower-case words of the training data."""

    @classmethod
    def fit(cls, tokens: FloatArray, words: frozenset[str]) -> Familiarity:
        """Fit to the mean image tokens (N, D) of N pictures; every fifth is held out to set the limit. Raises
        ValueError for fewer than `FEWEST`."""
        if len(tokens) < FEWEST:
            raise ValueError(f"{len(tokens)} pictures are too few to say what is usual; take {FEWEST}.")
        kept = np.arange(len(tokens)) % 5 == 4
        known = np.asarray(tokens, np.float64)
        mean, scale = known[~kept].mean(0), known[~kept].std(0) + _SPREAD
        standard = (known[~kept] - mean) / scale
        _, strengths, directions = np.linalg.svd(standard, full_matrices=False)
        components = directions[:COMPONENTS]
        left = standard - (standard @ components.T) @ components
        fitted = cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            components.astype(np.float32),
            np.maximum(strengths[:COMPONENTS] ** 2 / len(standard), _LEAST).astype(np.float32),
            max(float((left**2).mean()), _LEAST),
            1.0,
            words,
        )
        distances = sorted(fitted.distance(line) for line in known[kept].astype(np.float32))
        limit = max(distances[math.ceil(USUAL_SHARE * len(distances)) - 1], _LEAST)
        return cls(**{**vars(fitted), "limit": limit})

    @classmethod
    def load(cls, bundle: Bundle) -> Familiarity | None:
        """Read the statistics of a bundle; None if it has none. Raises BundleError if they are invalid."""
        values = bundle.familiarity
        if not values or FILE not in bundle.files:
            return None
        try:
            table = np.load(bundle.file(FILE), allow_pickle=False)
            mean, scale, *components = np.asarray(table, np.float32)
            found = cls(
                mean,
                scale,
                np.stack(components),
                np.asarray(values["variances"], np.float32),
                float(values["residual"]),
                float(values["limit"]),
                frozenset(map(str, values["words"])),
            )
        except (KeyError, TypeError, ValueError, OverflowError, OSError, EOFError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"The familiarity of {bundle.name} cannot be read ({type(error).__name__}: {error}); fetch "
                "the bundle again."
            ) from error
        numbers = (found.mean, found.scale, found.components, found.variances, found.residual, found.limit)
        if (
            found.mean.ndim != 1
            or found.variances.shape != (len(found.components),)
            or not all(np.isfinite(item).all() for item in numbers)
            or min(found.scale.min(), found.variances.min(), found.residual, found.limit) <= 0
        ):
            raise BundleError(
                f"The familiarity of {bundle.name} is not of finite positive numbers of one size; fetch the "
                "bundle again."
            )
        return found

    @property
    def table(self) -> FloatArray:
        """Return the array that a bundle stores, (2 + K, D): mean, scale and components."""
        return np.vstack([self.mean, self.scale, self.components])

    def to_manifest(self) -> dict[str, Any]:
        """Return the entry of a bundle's manifest."""
        return {
            "variances": [float(f"{value:.6g}") for value in self.variances],
            "residual": float(f"{self.residual:.6g}"),
            "limit": float(f"{self.limit:.6g}"),
            "words": sorted(self.words),
        }

    def unusual(self, scene: Scene) -> float:
        """Return how unusual the picture of a scene is: at most 1 for most training pictures, at 4 hardly any
        are that far."""
        tokens = np.asarray(scene.image_tokens, np.float32)
        if tokens.shape[1:] != self.mean.shape:
            raise ValueError(
                f"The scene has image tokens of {tokens.shape[1:]} and the familiarity is of "
                f"{self.mean.shape}: they are not of one model."
            )
        return self.distance(tokens.mean(0)) / self.limit

    def distance(self, mean: FloatArray) -> float:
        """Return the distance of a mean image token (D,): mean squared distance along the components in units
        of their variances, plus the squared reconstruction error in units of its mean. About 2 for a training
        picture."""
        standard = (mean - self.mean) / self.scale
        inside = self.components @ standard
        rest = standard - inside @ self.components
        return float((inside**2 / self.variances).mean() + (rest**2).mean() / self.residual)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a goal that do not occur in the training data, in order."""
        return tuple(dict.fromkeys(word for word in words_of(text) if word not in self.words))


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words, at digits and punctuation."""
    return _WORD.findall(text.lower())


def sentences(
    familiarity: Familiarity, unusual: float | None, goals: Sequence[str], picture: str = "the picture"
) -> list[str]:
    """Return warnings for users, without initial capital and full stop, printable.

    unusual: of the picture, None if it is not judged; goals: texts whose words are judged; picture: how the
    warning names the picture.
    """
    said = []
    if unusual is not None and unusual > 1:
        said.append(
            f"{picture} is unlike the pictures that the model learned from ({unusual:.1f}, and up to 1 is "
            "usual), so its answers may be wrong"
        )
    for goal in goals:
        if unknown := familiarity.unknown_words(goal):
            words = "words" if len(unknown) > 1 else "word"
            named = printable(", ".join(unknown), 200)
            said.append(f"the model never learned the {words} {named} of the goal {printable(goal, 60)!r}")
    return said
