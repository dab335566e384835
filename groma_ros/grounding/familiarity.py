"""Distance of a picture and of the words of a goal from a model's training data.

A picture is judged by the mean of its image tokens, which is compared with that of the training pictures of
each world: the principal components of a world span its usual range, and the distance of a picture is its
Mahalanobis distance within that span plus the reconstruction error, as in principal component anomaly
detection. The nearest world counts. One range over all worlds would include what lies between them, such as
pictures of noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.errors import printable
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.types import FloatArray, Scene

FILE = "familiarity.npy"
COMPONENTS = 16
"""With 32, some pictures of noise are within the limits of groma-tiny."""
FEWEST = 128
"""Minimum number of pictures of a world."""
USUAL_SHARE = 0.975
"""Share of a world's pictures below its limit, each judged by a fit to the others. Fewer of a new picture are
above all limits, since any world's will do."""
SIMILAR = 0.74
"""Least ratio of equal letters (of `difflib`) at which a known word is suggested: "bolw" and "bowl" have
0.75."""
SUGGESTED = 5
"""Number of unknown words of a goal that get a suggestion: goals may be long, and the node's callbacks
wait."""
LEAST_LETTERS = 4
"""Least length of a word for which another is suggested."""
_FOLDS = 5
_WORD = re.compile(r"[^\W\d_]+")
_LEAST = 1e-4
"""Lower bound of variances, residual and limit: for pictures that hardly differ, or with fewer features than
components, they would be 0."""
_SPREAD = 1e-6
"""Added to standard deviations, to avoid division by 0 for a constant feature."""


@dataclass(frozen=True, eq=False)
class UsualPictures:
    """Statistics of the training pictures of one world."""

    name: str
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

    @classmethod
    def fit(cls, name: str, tokens: FloatArray) -> UsualPictures:
        """Fit to the mean image tokens (N, D) of N pictures, in any order. Raises ValueError for fewer than
        `FEWEST`."""
        if len(tokens) < FEWEST:
            raise ValueError(f"{len(tokens)} pictures are too few to say what is usual; take {FEWEST}.")
        known = np.asarray(tokens, np.float64)
        # Neighbours are alike, so draw the parts at random.
        part = np.random.default_rng(0).permutation(len(known)) % _FOLDS
        distances = np.empty(len(known))
        for fold in range(_FOLDS):
            fitted = cls._of(name, known[part != fold])
            distances[part == fold] = [fitted.distance(line) for line in known[part == fold]]
        limit = np.sort(distances)[math.ceil(USUAL_SHARE * len(known)) - 1]
        return replace(cls._of(name, known), limit=max(float(limit), _LEAST))

    @classmethod
    def _of(cls, name: str, known: NDArray[np.float64]) -> UsualPictures:
        """Fit without a limit."""
        mean, scale = known.mean(0), known.std(0) + _SPREAD
        standard = (known - mean) / scale
        _, strengths, directions = np.linalg.svd(standard, full_matrices=False)
        components = directions[:COMPONENTS]
        left = standard - (standard @ components.T) @ components
        return cls(
            name,
            mean.astype(np.float32),
            scale.astype(np.float32),
            components.astype(np.float32),
            np.maximum(strengths[:COMPONENTS] ** 2 / len(standard), _LEAST).astype(np.float32),
            max(float((left**2).mean()), _LEAST),
            1.0,
        )

    def distance(self, mean: NDArray[Any]) -> float:
        """Return the distance of a mean image token (D,): mean squared distance along the components in units
        of their variances, plus the squared reconstruction error in units of its mean. About 2 for a training
        picture."""
        standard = (mean - self.mean) / self.scale
        inside = self.components @ standard
        rest = standard - inside @ self.components
        return float((inside**2 / self.variances).mean() + (rest**2).mean() / self.residual)

    @property
    def is_valid(self) -> bool:
        """Whether the numbers are finite, positive where they must be, and of one size."""
        numbers = (self.mean, self.scale, self.components, self.variances, self.residual, self.limit)
        return (
            self.mean.ndim == 1
            and self.variances.shape == (len(self.components),)
            and all(np.isfinite(item).all() for item in numbers)
            and min(self.scale.min(), self.variances.min(), self.residual, self.limit) > 0
        )


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Statistics of a model's training data."""

    worlds: tuple[UsualPictures, ...]
    """At least one, all with the same numbers of features and components."""
    words: frozenset[str]
    """Lower-case words of the training data."""

    @classmethod
    def fit(cls, tokens: Mapping[str, FloatArray], words: frozenset[str]) -> Familiarity:
        """Fit to the mean image tokens (N, D) of the pictures of each world. Raises ValueError for a world of
        fewer than `FEWEST`."""
        return cls(tuple(UsualPictures.fit(name, lines) for name, lines in tokens.items()), words)

    @classmethod
    def load(cls, bundle: Bundle) -> Familiarity | None:
        """Read the statistics of a bundle; None if it has none. Raises BundleError if they are invalid."""
        values = bundle.familiarity
        if not values or FILE not in bundle.files:
            return None
        try:
            table = np.asarray(np.load(bundle.file(FILE), allow_pickle=False), np.float32)
            # Older bundles have one world without a name, whose fields stand beside the words.
            entries = values.get("worlds", [{"name": "", **values}])
            found = cls(
                tuple(
                    UsualPictures(
                        str(entry["name"]),
                        lines[0],
                        lines[1],
                        lines[2:],
                        np.asarray(entry["variances"], np.float32),
                        float(entry["residual"]),
                        float(entry["limit"]),
                    )
                    for entry, lines in zip(entries, table.reshape(-1, *table.shape[-2:]), strict=True)
                ),
                frozenset(map(str, values["words"])),
            )
            valid = bool(found.worlds) and all(world.is_valid for world in found.worlds)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, OSError, EOFError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"The familiarity of {bundle.name} cannot be read ({type(error).__name__}: {error}); fetch "
                "the bundle again."
            ) from error
        if not valid:
            raise BundleError(
                f"The familiarity of {bundle.name} is not of finite positive numbers of one size; fetch the "
                "bundle again."
            )
        return found

    @property
    def features(self) -> int:
        """Return the number of features of an image token."""
        return len(self.worlds[0].mean)

    @property
    def table(self) -> FloatArray:
        """Return the array that a bundle stores, (W, 2 + K, D): mean, scale and components of each world."""
        return np.stack([np.vstack([one.mean, one.scale, one.components]) for one in self.worlds])

    def to_manifest(self) -> dict[str, Any]:
        """Return the entry of a bundle's manifest."""
        worlds = [
            {
                "name": one.name,
                "limit": float(f"{one.limit:.6g}"),
                "residual": float(f"{one.residual:.6g}"),
                "variances": [float(f"{value:.6g}") for value in one.variances],
            }
            for one in self.worlds
        ]
        return {"worlds": worlds, "words": sorted(self.words)}

    def unusual(self, scene: Scene) -> float:
        """Return how unusual the picture of a scene is for the world that it is nearest to: at most 1 for
        most training pictures, at 4 hardly any are that far."""
        tokens = np.asarray(scene.image_tokens, np.float32)
        if tokens.shape[1:] != (self.features,):
            raise ValueError(
                f"The scene has image tokens of {tokens.shape[1:]} and the familiarity is of "
                f"{(self.features,)}: they are not of one model."
            )
        mean = tokens.mean(0)
        return min(one.distance(mean) / one.limit for one in self.worlds)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a goal that do not occur in the training data, in order."""
        return tuple(dict.fromkeys(word for word in words_of(text) if word not in self.words))

    def with_suggestion(self, word: str) -> str:
        """An unknown word, with the most similar known one of the same initial in brackets if there is one,
        for typing errors."""
        if len(word) < LEAST_LETTERS:
            return word
        alike = sorted(known for known in self.words if known.startswith(word[0]))
        near = get_close_matches(word, alike, 1, SIMILAR)
        return f"{word} ({near[0]}?)" if near else word


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
        shown = repr(printable(goal, 60))
        if not words_of(goal):
            said.append(f"the goal {shown} holds no word, so its answer means nothing")
        if unknown := familiarity.unknown_words(goal):
            words = "words" if len(unknown) > 1 else "word"
            first = [*map(familiarity.with_suggestion, unknown[:SUGGESTED]), *unknown[SUGGESTED:]]
            named = printable(", ".join(first), 200)
            said.append(f"the model never learned the {words} {named} of the goal {shown}")
    return said
