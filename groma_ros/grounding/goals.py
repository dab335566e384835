"""Which goals can be asked at all, before any model is needed to say so."""

from __future__ import annotations

import numpy as np

from groma_ros.types import GOAL_KINDS, Goal

MAX_CHARACTERS = 1000
SPOKEN_KINDS = ("describe", "chat")
"""Goals whose answer is in words: they are asked once and cannot stand."""


def check_goal(goal: Goal) -> None:
    """Raise ValueError with a sentence for a goal that no model can be asked: no words, far too many, a kind or boxes unknown.

    Every character is legal. What looks like a special token (`<r3>`, `</s>`) is read as the characters it is written with.
    """
    if goal.kind not in GOAL_KINDS:
        raise ValueError(f"The goal kind {str(goal.kind)[:40]!r} is unknown; use one of {', '.join(GOAL_KINDS)}.")
    if any("\ud800" <= char <= "\udfff" for char in goal.text):
        raise ValueError("The goal holds bytes that are not text; write it in UTF-8.")
    if goal.kind != "describe" and not goal.text.strip():
        raise ValueError("The goal is empty; say in words what to look for, e.g. 'the red mug'.")
    if len(goal.text) > MAX_CHARACTERS:
        raise ValueError(f"The goal has {len(goal.text)} characters; at most {MAX_CHARACTERS} are read, so say it shorter.")
    if not 0 <= goal.min_score <= 1:
        raise ValueError(f"The goal's min_score is {goal.min_score}; it must be between 0 and 1.")
    if goal.regions is not None:
        _check_regions(np.asarray(goal.regions))


def check_standing(goal: Goal) -> None:
    """Raise ValueError with a sentence for a goal that is answered in words."""
    if goal.kind in SPOKEN_KINDS:
        raise ValueError(f"The goal {goal.text[:40]!r} is of kind {goal.kind}, whose answer is words; it cannot stand: use ~/ask.")


def _check_regions(boxes: np.ndarray) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"The goal's regions must be boxes of four numbers (x1, y1, x2, y2), not of shape {boxes.shape}.")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError("A region of the goal is not a box: x2 must be above x1, y2 above y1, and all finite.")
