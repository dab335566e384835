"""Boxes, goals and scores drawn on an image, readable at camera size. Shared by the command, the node and the
demo."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from groma_ros.types import Grounding

PALETTE = (
    (66, 133, 244),
    (219, 68, 55),
    (214, 130, 0),
    (15, 157, 88),
    (171, 71, 188),
    (0, 145, 170),
    (230, 81, 40),
    (92, 107, 192),
)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_groundings(
    rgb: np.ndarray, groundings: Sequence[Grounding], caption: bool = True, note: str = ""
) -> np.ndarray:
    """A copy of the uint8 HxWx3 RGB image with every detection boxed and labelled in its goal's colour.

    A label says the goal, the score and, behind #, the id of a detection that has one. caption: add a strip
    below the picture with a line a goal: its text and what was found, absent goals included; note: a last
    line of the strip.
    """
    image = np.ascontiguousarray(rgb).copy()
    scale = max(0.4, min(image.shape[:2]) / 900)
    taken: list[tuple[int, int, int, int]] = []
    for number, grounding in enumerate(groundings):
        for detection in grounding.detections:
            _box(image, detection.box, colour(number), scale)
    for number, grounding in enumerate(groundings):
        for detection in grounding.detections:
            label = f"{_printable(grounding.goal.text, 28)} {detection.score:.2f}"
            label += f" #{_printable(detection.track_id, 12)}" if detection.track_id else ""
            _label(image, label, detection.box, colour(number), scale, taken)
    if not caption or not (groundings or note):
        return image
    return np.concatenate([image, _captions(image.shape[1], groundings, scale, note)])


def colour(number: int) -> tuple[int, int, int]:
    """The RGB colour of the goal at a place in the list."""
    return PALETTE[number % len(PALETTE)]


def _printable(text: str, limit: int) -> str:
    """What the built-in font can draw: other characters become '?', long texts are cut."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def _box(image: np.ndarray, box: Sequence[float], shade: tuple[int, int, int], scale: float) -> None:
    x1, y1, x2, y2 = (round(value) for value in box)
    width = max(2, round(3 * scale))
    cv2.rectangle(image, (x1, y1), (x2, y2), (255, 255, 255), width + 2, cv2.LINE_AA)
    cv2.rectangle(image, (x1, y1), (x2, y2), shade, width, cv2.LINE_AA)


def _label(
    image: np.ndarray,
    text: str,
    box: Sequence[float],
    shade: tuple[int, int, int],
    scale: float,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """A filled label above the box, moved down or up in steps until it hides no other label, and kept inside
    the image."""
    (width, height), base = cv2.getTextSize(text, FONT, scale, 1)
    tall = height + base + 4
    x = int(np.clip(box[0], 0, max(0, image.shape[1] - width - 6)))
    start = int(box[1]) - tall - 2
    steps = [start] + [start + way * step * tall for step in range(1, 12) for way in (-1, 1)]
    legal = [y for y in steps if 0 <= y <= image.shape[0] - tall] or [
        int(np.clip(start, 0, max(0, image.shape[0] - tall)))
    ]
    place = next(
        (y for y in legal if not any(_meet((x, y, x + width + 6, y + tall), other) for other in taken)),
        legal[0],
    )
    taken.append((x, place, x + width + 6, place + tall))
    cv2.rectangle(image, (x, place), (x + width + 6, place + tall), shade, cv2.FILLED)
    cv2.putText(image, text, (x + 3, place + height + 2), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _captions(width: int, groundings: Sequence[Grounding], scale: float, note: str) -> np.ndarray:
    tall = round(34 * scale) + 6
    lines = len(groundings) + bool(note)
    strip = np.full((tall * lines + 8, width, 3), 24, np.uint8)
    room = max(16, int(width / (18 * scale)) - 26)
    for number, grounding in enumerate(groundings):
        y = 4 + tall * number
        cv2.rectangle(strip, (6, y + 4), (6 + tall - 10, y + tall - 6), colour(number), cv2.FILLED)
        text = f"{_printable(grounding.goal.text, room)}: {_verdict(grounding)}"
        cv2.putText(strip, text, (tall + 6, y + tall - 8), FONT, scale, (235, 235, 235), 1, cv2.LINE_AA)
    if note:
        y = 4 + tall * len(groundings)
        cv2.putText(
            strip,
            _printable(note, room + 26),
            (6, y + tall - 8),
            FONT,
            scale,
            (170, 170, 170),
            1,
            cv2.LINE_AA,
        )
    return strip


def _verdict(grounding: Grounding) -> str:
    count = len(grounding.detections)
    if not count:
        return f"absent (present {grounding.present:.2f})"
    return f"{count} found (present {grounding.present:.2f})"
