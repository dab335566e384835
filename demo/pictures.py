"""A strip and a film of episodes: the question, the answer, and the robot's actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.episodes import Row

_WIDTH, _HEIGHT = 320, 240
_TITLE = 22
_GREEN, _RED = (60, 170, 60), (50, 50, 220)
Told = tuple[Any, list[Path], Row, Any]
"""The image of the question (rgb), the film's pictures, the row, and the bridge's outcome with its answer."""


def _frames(names: Sequence[Path]) -> list[Any]:
    return [frame for name in names if (frame := cv2.imread(str(name))) is not None]


def _titled(picture: Any, text: str, colour: tuple[int, int, int]) -> Any:
    image = cv2.copyMakeBorder(picture, _TITLE, 0, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(image, text[:52], (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return image


def asked(told: Told) -> Any:
    """The image of the question with the box of the answer."""
    picture, _, row, outcome = told
    image = cv2.cvtColor(
        cv2.resize(picture, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR
    )
    answer = getattr(outcome, "answer", None)
    if answer is not None and answer.box is not None:
        scale = _WIDTH / picture.shape[1]
        x1, y1, x2, y2 = (round(value * scale) for value in answer.box)
        cv2.rectangle(image, (x1 - 2, y1 - 2), (x2 + 2, y2 + 2), _GREEN, 2)
    return _titled(image, row.goal, (0, 0, 0))


def _result(told: Told) -> tuple[str, tuple[int, int, int]]:
    row = told[2]
    text = row.outcome if row.present or row.outcome != "success" else "not there: stays"
    return (f"{text}: {row.cause}" if row.cause else text), (_GREEN if row.outcome == "success" else _RED)


def write_strip(path: Path, told: Sequence[Told], moments: int = 3) -> None:
    """Write one row per episode: the question, and moments of what followed. Writes nothing without
    episodes."""
    rows = []
    for item in told:
        frames = _frames(item[1])
        if not frames:
            continue
        drawn = item[1][-1].suffix == ".png"  # the last picture is a map of the path
        count = len(frames) - drawn
        at = [0, count // 2] if drawn else np.linspace(0, count - 1, moments + 2).round().astype(int)[1:-1]
        shown = [_titled(cv2.resize(frames[i], (_WIDTH, _HEIGHT)), "", (0, 0, 0)) for i in at]
        text, colour = _result(item)
        if drawn:
            # The answer refers to the end of the path.
            view = asked(item)[_TITLE:]
            way = _titled(cv2.resize(frames[-1], (_WIDTH, _HEIGHT)), text, colour)
            goal = _titled(shown[0][_TITLE:], item[2].goal, (0, 0, 0))
            rows.append(np.hstack([goal, *shown[1:], _titled(view, "", colour), way]))
            continue
        shown[-1] = _titled(shown[-1][_TITLE:], text, colour)
        rows.append(np.hstack([asked(item), *shown]))
    if rows:
        cv2.imwrite(str(path), np.vstack(rows))


def write_film(path: Path, told: Sequence[Told], rate: float = 8.0) -> None:
    """Write the episodes one after the other, with the goal above."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (_WIDTH, _HEIGHT + _TITLE))
    for item in told:
        for _ in range(6):
            writer.write(asked(item))
        text, colour = _result(item)
        frames = _frames(item[1])
        for index, frame in enumerate(frames):
            late = index > len(frames) - 4
            title = text if late else item[2].goal
            writer.write(_titled(cv2.resize(frame, (_WIDTH, _HEIGHT)), title, colour if late else (0, 0, 0)))
    writer.release()
