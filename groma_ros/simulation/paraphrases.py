"""Paraphrase goals: synonyms of kinds and colours, and requests around them ("hand me the crimson cup").

The targets of a goal do not change. Training uses `FRAMES` and `SYNONYMS`; `UNSEEN_FRAMES` are for evaluation
only.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.requests import HELD_OUT_FRAMES
from groma_ros.simulation.shapes import KINDS
from groma_ros.simulation.vocabulary import SYNONYMS, plural

FRAMES = (
    "hand me {}",
    "find me {}",
    "find {}",
    "where is {}",
    "show me {}",
    "give me {}",
    "pick up {}",
    "look for {}",
    "please get {}",
    "i need {}",
    "can you see {}",
    "point at {}",
    "{} please",
)
UNSEEN_FRAMES = HELD_OUT_FRAMES


def _spoken(rng: np.random.Generator, word: str, chance: float) -> str:
    """Return a word, or with probability `chance` a synonym in the same grammatical number."""
    for base in (*COLOURS, *KINDS):
        if word in (base, plural(base)):
            options = SYNONYMS[base]
            if rng.random() >= chance:
                return word
            chosen = options[int(rng.integers(len(options)))]
            return chosen if word == base else plural(chosen)
    return word


def reword(text: str, rng: np.random.Generator, chance: float = 0.5) -> str:
    """Replace some kinds and colours by synonyms and adjust `a` and `an`."""
    words = [_spoken(rng, word, chance) for word in text.split()]
    for index, (word, after) in enumerate(itertools.pairwise(words)):
        if word in ("a", "an"):
            words[index] = "an" if after[0] in "aeiou" else "a"
    return " ".join(words)


def paraphrase(goal: SceneGoal, rng: np.random.Generator, frames: tuple[str, ...] = FRAMES) -> SceneGoal:
    """Rephrase a goal with synonyms, a request around it, or both."""
    draw = rng.random()
    text = reword(goal.text, rng) if draw < 0.65 else goal.text
    if draw > 0.35:
        text = frames[int(rng.integers(len(frames)))].replace("{}", text)
    return dataclasses.replace(goal, text=text)
