"""Pictures of wrongly answered goals with the true and the returned boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray

RIGHT, SAID = (60, 200, 60), (230, 50, 50)  # RGB
_MOST, _SHEET, _COLUMNS, _TILE = 60, 12, 3, 420
_LINE = 22


@dataclass(frozen=True, eq=False)
class Failure:
    """A wrong answer."""

    rgb: NDArray[Any]
    """uint8 HxWx3."""
    text: str
    """The goal."""
    kind: str
    """Kind of the goal."""
    cause: str
    """Outcome, as in the report's `errors`."""
    targets: FloatArray
    """True boxes, (N, 4) xyxy pixels."""
    answered: FloatArray
    """Returned boxes, (N, 4) xyxy pixels."""


@dataclass
class Album:
    """Write the first failures of every kind to a folder, and a contact sheet on `close`."""

    folder: Path
    kept: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    written: int = 0

    def __call__(self, failure: Failure) -> None:
        """Write a failure, unless the limit of its kind is reached."""
        own = self.kept.setdefault(failure.kind, [])
        if len(own) >= _MOST // 6:
            return
        tile = drawn(failure)
        own.append(tile)
        self.written += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{failure.kind}-{len(own):02d}-{failure.cause.replace(' ', '-')}.jpg"
        cv2.imwrite(str(self.folder / name), tile[..., ::-1])

    def close(self) -> Path | None:
        """Write the contact sheet and return its path; None if there were no failures."""
        rounds = max(map(len, self.kept.values()), default=0)
        tiles = [own[turn] for turn in range(rounds) for own in self.kept.values() if turn < len(own)][
            :_SHEET
        ]
        if not tiles:
            return None
        path = self.folder / "sheet.jpg"
        cv2.imwrite(str(path), sheet(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        return path


def drawn(failure: Failure) -> NDArray[Any]:
    """Draw true boxes in green and returned ones in red, with the goal and the outcome below; _TILE pixels
    wide."""
    scale = _TILE / failure.rgb.shape[1]
    image = cv2.resize(failure.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for boxes, colour, inset in ((failure.targets, RIGHT, 0), (failure.answered, SAID, 3)):
        for x1, y1, x2, y2 in np.rint(np.asarray(boxes) * scale).astype(int).tolist():
            cv2.rectangle(image, (x1 + inset, y1 + inset), (x2 - inset, y2 - inset), colour, 2)
    strip = np.full((2 * _LINE + 8, image.shape[1], 3), 255, np.uint8)
    said = f"{failure.kind}: {failure.cause}" + ("" if len(failure.targets) else " (nothing is right)")
    for row, (words, shade) in enumerate(((failure.text, (20, 20, 20)), (said, SAID))):
        place = (6, _LINE * (row + 1) - 4)
        cv2.putText(
            strip,
            words,
            place,
            cv2.FONT_HERSHEY_SIMPLEX,
            _fit(words, image.shape[1] - 12),
            shade,
            1,
            cv2.LINE_AA,
        )
    return np.vstack([image, strip])


def _fit(words: str, width: int) -> float:
    """The largest font scale up to 0.5 at which the words fit."""
    return min(0.5, 0.5 * width / max(1, cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]))


def sheet(tiles: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrange tiles in rows of _COLUMNS on white."""
    height, width = max(tile.shape[0] for tile in tiles), max(tile.shape[1] for tile in tiles)
    rows = -(-len(tiles) // _COLUMNS)
    page = np.full((rows * (height + 8), min(len(tiles), _COLUMNS) * (width + 8), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // _COLUMNS * (height + 8), number % _COLUMNS * (width + 8)
        page[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return page
