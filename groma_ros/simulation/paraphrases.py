"""Goals said in other words: synonyms of kinds and colours, and requests around them ("hand me the crimson
cup").

A goal's targets stay what they are. Training draws from `FRAMES` and `SYNONYMS`; `UNSEEN_FRAMES` are for
measuring only.
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
    """A word of a goal, or with a chance a synonym of it, in the same number."""
    for base in (*COLOURS, *KINDS):
        if word in (base, plural(base)):
            options = SYNONYMS[base]
            if rng.random() >= chance:
                return word
            chosen = options[int(rng.integers(len(options)))]
            return chosen if word == base else plural(chosen)
    return word


def reword(text: str, rng: np.random.Generator, chance: float = 0.5) -> str:
    """The text with synonyms for some of its kinds and colours; `a` and `an` follow the word behind them."""
    words = [_spoken(rng, word, chance) for word in text.split()]
    for index, (word, after) in enumerate(itertools.pairwise(words)):
        if word in ("a", "an"):
            words[index] = "an" if after[0] in "aeiou" else "a"
    return " ".join(words)


def paraphrase(goal: SceneGoal, rng: np.random.Generator, frames: tuple[str, ...] = FRAMES) -> SceneGoal:
    """The goal in other words: synonyms, a request around it, or both."""
    draw = rng.random()
    text = reword(goal.text, rng) if draw < 0.65 else goal.text
    if draw > 0.35:
        text = frames[int(rng.integers(len(frames)))].replace("{}", text)
    return dataclasses.replace(goal, text=text)
