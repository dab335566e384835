"""Read and check the values of an action sent by a page, which can send anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from groma_ros.types import FloatArray, Goal, GoalKind

Action = Mapping[str, Any]
MAX_BOXES = 256


def text_of(action: Action, key: str) -> str:
    """Read a text, "" if it is absent. Raises ValueError for another type."""
    value = action.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"The value of {key!r} must be a text.")
    return value


def number_of(action: Action, key: str) -> float:
    """Read a finite number. Raises ValueError for anything else."""
    value = action.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"The value of {key!r} must be a number.")
    return value


def goals_of(action: Action) -> list[Goal]:
    """Read the goals under `goals`, each a mapping of text and kind; surrounding spaces are stripped.

    Their content is checked by `check_goal`. Raises ValueError for another form.
    """
    entries = action.get("goals")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("The goals must be a list of mappings with the key text.")
    return [
        Goal(text_of(entry, "text").strip(), cast(GoalKind, text_of(entry, "kind") or "auto"))
        for entry in entries
    ]


def boxes_of(action: Action, key: str) -> FloatArray:
    """Read boxes, float32 Mx4 xyxy in pixels. Raises ValueError for anything else."""
    value = action.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_BOXES:
        raise ValueError(f"The value of {key!r} must be a list of at most {MAX_BOXES} boxes.")
    for box in value:
        numbers = isinstance(box, list) and all(
            isinstance(side, (int, float)) and not isinstance(side, bool) and math.isfinite(side)
            for side in box
        )
        if not numbers or len(box) != 4 or not (box[2] > box[0] and box[3] > box[1]):
            raise ValueError(
                f"A box of {key!r} must be four numbers x1, y1, x2, y2 with x2 > x1 and y2 > y1."
            )
    return np.array(value, np.float32).reshape(-1, 4)
