"""Check goals, and read them from a YAML file: under the key `goals`, texts or mappings of text, kind and
min_score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import yaml

from groma_ros.errors import quoted
from groma_ros.types import GOAL_KINDS, Goal, GoalKind
from groma_ros.yaml_files import YamlError, compose

MAX_CHARACTERS = 1000
"""Maximum length of a goal, characters."""
SHOWN = 60
"""Number of characters of a text that an error quotes."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Surrogates, which no valid text contains; bytes that are not UTF-8 are decoded to them."""
MAX_REGIONS = 100
"""Maximum number of boxes that a goal is about, as many as Groma has regions."""
SPOKEN_KINDS = ("describe", "chat")
"""Kinds of goals with an answer in words: they are asked once and cannot be standing goals."""
STANDING_KINDS = tuple(kind for kind in GOAL_KINDS if kind not in SPOKEN_KINDS)
"""Kinds of goals that are answered with boxes, and can be standing goals."""


def as_goals(given: str | Goal | Sequence[str | Goal]) -> list[Goal]:
    """Return one goal, or several, each a text or a `Goal`, as a list; its goals are not checked. Raises
    ValueError for something that is no list."""
    try:
        found = [given] if isinstance(given, (str, bytes, Goal)) else list(given)
    except TypeError:
        raise ValueError(
            f"The goals are {quoted(given)}; give a text, a Goal or a list of them, e.g. ['the red mug']."
        ) from None
    return [Goal(goal) if isinstance(goal, str) else goal for goal in found]


def check_goal(goal: Goal) -> None:
    """Raise ValueError for a goal that no model can answer: no words, far too many characters, an unknown
    kind, invalid boxes, a field of another type or no `Goal`.

    Every character is allowed. Text in the form of a special token (`<r3>`, `</s>`) is treated as plain
    characters.
    """
    if not isinstance(goal, Goal):
        raise ValueError(f"A goal is {quoted(goal)} and must be a text or a Goal, e.g. 'the red mug'.")
    if not isinstance(goal.text, str):
        raise ValueError(f"The goal's text is {quoted(goal.text)} and must be a text, e.g. 'the red mug'.")
    if not isinstance(goal.kind, str) or goal.kind not in GOAL_KINDS:
        raise ValueError(
            f"The goal kind {str(goal.kind)[:40]!r} is unknown; use one of {', '.join(GOAL_KINDS)}."
        )
    if SURROGATE.search(goal.text):
        raise ValueError("The goal holds bytes that are not text; write it in UTF-8.")
    if goal.kind != "describe" and not goal.text.strip():
        raise ValueError("The goal is empty; say in words what to look for, e.g. 'the red mug'.")
    if len(goal.text) > MAX_CHARACTERS:
        raise ValueError(
            f"The goal has {len(goal.text)} characters; the limit is {MAX_CHARACTERS}. Shorten the goal."
        )
    if not isinstance(goal.min_score, Real):
        raise ValueError(
            f"The goal's min_score is {quoted(goal.min_score)} and must be a number from 0 to 1."
        )
    if not 0 <= goal.min_score <= 1:
        raise ValueError(f"The goal's min_score is {goal.min_score}; it must be between 0 and 1.")
    if goal.regions is not None:
        _check_regions(goal.regions)


def check_standing(goal: Goal) -> None:
    """Raise ValueError for a goal with an answer in words."""
    if goal.kind in SPOKEN_KINDS:
        raise ValueError(
            f"The goal {goal.text[:40]!r} is of kind {goal.kind}, whose answer is words; it cannot stand: "
            "use ~/ask."
        )


def _check_regions(regions: Any) -> None:
    try:
        boxes = np.asarray(regions)
    except ValueError:  # rows of different lengths
        boxes = np.array(None)
    if boxes.dtype.kind not in "fiu":
        raise ValueError(
            f"The goal's regions are {quoted(regions)}; they must be boxes of four numbers (x1, y1, x2, y2)."
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"The goal's regions must be boxes of four numbers (x1, y1, x2, y2), not of shape {boxes.shape}."
        )
    if len(boxes) > MAX_REGIONS:
        raise ValueError(f"The goal has {len(boxes)} regions; the limit is {MAX_REGIONS}.")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError(
            "A region of the goal is not a box: x2 must be above x1, y2 above y1, and all finite."
        )


_KEYS = ("text", "kind", "min_score")
_NULL = "tag:yaml.org,2002:null"


def read_goals(path: Path) -> tuple[Goal, ...]:
    """Read the standing goals of a file, in order; repeated ones are skipped. Raises ValueError naming the
    line and the key that is wrong."""
    try:
        root = compose(path)
    except OSError as error:
        raise ValueError(f"The goals {path} cannot be read: {error.strerror}.") from error
    except YamlError as error:
        raise ValueError(f"The goals {path} cannot be used: {error}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"The goals {path} must be a mapping with the key goals, a list.")
    entries = None
    for key, value in root.value:
        if key.value != "goals":
            _refuse(path, key, f"the key {_quoted(key)} is not known; the only key is 'goals'")
        if entries is not None:
            _refuse(path, key, "the key 'goals' stands there twice")
        entries = value
    if not isinstance(entries, yaml.SequenceNode) or not entries.value:
        raise ValueError(
            f"The goals {path} hold no goals: under the key goals stands a list of texts or mappings."
        )
    goals: dict[str, Goal] = {}
    for entry in entries.value:
        goal = _goal(path, entry)
        before = goals.setdefault(goal.text, goal)
        if (before.kind, before.min_score) != (goal.kind, goal.min_score):
            _refuse(path, entry, f"the goal {goal.text[:SHOWN]!r} stands there twice, and differently")
    return tuple(goals.values())


def _goal(path: Path, node: yaml.Node) -> Goal:
    fields: dict[str, Any] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value not in _KEYS:
                _refuse(
                    path, key, f"the key {_quoted(key)} is not known; a goal has the keys {', '.join(_KEYS)}"
                )
            if key.value in fields:
                _refuse(path, key, f"the key {key.value!r} stands there twice in one goal")
            fields[key.value] = _scalar(path, key.value, value)
    else:
        fields["text"] = _scalar(path, "text", node)
    if "text" not in fields:
        _refuse(path, node, "the key 'text' is missing")
    kind = fields.get("kind", "auto")
    if kind not in STANDING_KINDS:
        wrong = "answered in words and cannot stand" if kind in SPOKEN_KINDS else "unknown"
        _refuse(
            path, node, f"the goal kind {kind[:SHOWN]!r} is {wrong}; use one of {', '.join(STANDING_KINDS)}"
        )
    goal = Goal(fields["text"], cast(GoalKind, kind), fields.get("min_score", 0.0))
    try:
        check_goal(goal)
    except ValueError as error:
        _refuse(path, node, str(error).rstrip("."))
    return goal


def _scalar(path: Path, key: str, node: yaml.Node) -> str | float:
    """Return the value of a key: text as written, min_score as a number."""
    if not isinstance(node, yaml.ScalarNode):
        _refuse(
            path,
            node,
            f"the key {key!r} holds a {node.id} and must hold "
            f"{'a number' if key == 'min_score' else 'a text'}",
        )
    if key == "text" and node.tag == _NULL and node.value:
        _refuse(
            path,
            node,
            f"the key 'text' holds {node.value[:SHOWN]}, which is no text; write a goal, or put it in quotes "
            "if you mean the word",
        )
    if key != "min_score":
        return str(node.value)
    try:
        return float(node.value)
    except ValueError:
        _refuse(path, node, f"the key 'min_score' holds {_quoted(node)} and must hold a number from 0 to 1")


def _quoted(node: yaml.ScalarNode) -> str:
    """Return a scalar of the file as an error quotes it."""
    return repr(node.value[:SHOWN])


def _refuse(path: Path, node: yaml.Node, reason: str) -> NoReturn:
    raise ValueError(f"The goals {path} are wrong in line {node.start_mark.line + 1}: {reason}.")
