"""How far a picture and the words of a goal are from what a model learned from.

A picture is judged by the mean of its image tokens: the principal components of that mean over pictures of
the training data span what is usual, and a picture counts as unusual by its distance inside that span
(Mahalanobis) and by what the span leaves out (reconstruction error), as in principal component anomaly
detection.
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
"""Pictures that `fit` takes at least."""
USUAL_SHARE = 0.99
"""Of the pictures that were kept from the fit, this share lies below the limit."""
_WORD = re.compile(r"[^\W\d_]+")
_SPREAD = 1e-6
"""Added to standard deviations, so that a feature that never changes divides nothing by 0."""


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What is usual for a model."""

    mean: FloatArray
    """(D,) of the pictures' mean image tokens."""
    scale: FloatArray
    """(D,) their standard deviations."""
    components: FloatArray
    """(K, D) orthonormal directions of the standardised means, by falling variance."""
    variances: FloatArray
    """(K,) along them."""
    residual: float
    """Mean square of what they leave out."""
    limit: float
    """Distance up to which a picture is usual."""
    words: frozenset[str]
    """Lower-case words that the model learned."""

    @classmethod
    def fit(cls, tokens: FloatArray, words: frozenset[str]) -> Familiarity:
        """Fit to the mean image tokens (N, D) of N pictures, of which every fifth sets the limit. Raises
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
            (strengths[:COMPONENTS] ** 2 / len(standard)).astype(np.float32),
            float((left**2).mean()),
            1.0,
            words,
        )
        distances = sorted(fitted.distance(line) for line in known[kept].astype(np.float32))
        limit = distances[math.ceil(USUAL_SHARE * len(distances)) - 1]
        return cls(**{**vars(fitted), "limit": limit})

    @classmethod
    def load(cls, bundle: Bundle) -> Familiarity | None:
        """What a bundle says is usual for its model; None where it says nothing. Raises BundleError for what
        cannot be read."""
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
        """(2 + K, D): mean, scale and components, the array that a bundle stores."""
        return np.vstack([self.mean, self.scale, self.components])

    def to_manifest(self) -> dict[str, Any]:
        """What a bundle's manifest says of it."""
        return {
            "variances": [float(f"{value:.6g}") for value in self.variances],
            "residual": float(f"{self.residual:.6g}"),
            "limit": float(f"{self.limit:.6g}"),
            "words": sorted(self.words),
        }

    def unusual(self, scene: Scene) -> float:
        """How unusual the picture of a scene is: up to 1 as most that the model learned from, at 4 hardly
        like any."""
        tokens = np.asarray(scene.image_tokens, np.float32)
        if tokens.shape[1:] != self.mean.shape:
            raise ValueError(
                f"The scene has image tokens of {tokens.shape[1:]} and the familiarity is of "
                f"{self.mean.shape}: they are not of one model."
            )
        return self.distance(tokens.mean(0)) / self.limit

    def distance(self, mean: FloatArray) -> float:
        """Of a mean image token (D,): mean squared distance inside the components, in their variances, plus
        the squared rest, in its usual size. About 2 for a picture of the training data."""
        standard = (mean - self.mean) / self.scale
        inside = self.components @ standard
        rest = standard - inside @ self.components
        return float((inside**2 / self.variances).mean() + (rest**2).mean() / self.residual)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """The words of a goal that the model never learned, in their order."""
        return tuple(dict.fromkeys(word for word in words_of(text) if word not in self.words))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; digits and punctuation separate them."""
    return _WORD.findall(text.lower())


def sentences(
    familiarity: Familiarity, unusual: float | None, goals: Sequence[str], picture: str = "the picture"
) -> list[str]:
    """Warnings for people, without capital and full stop, printable.

    unusual: of the picture, None where it is not to be judged; goals: texts whose words are judged; picture:
    what to call it.
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
