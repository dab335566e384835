"""Draw detections, goals and scores on an image, for `groma ground`, the node's debug image and the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.types import Detection, Grounding

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
SAME_OBJECT = 0.8
"""IoU from which boxes of two goals are considered the same object."""
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


def draw_groundings(
    rgb: NDArray[Any], groundings: Sequence[Grounding], caption: bool = True, note: str = ""
) -> NDArray[Any]:
    """Draw every detection in its goal's colour, with a label (goal, score, #track id), on a copy of an
    image.

    A label never covers its own object; if there is no room for it outside the box, it is left out. Boxes of
    several goals around one object are nested, so that each colour is visible.

    rgb: uint8 HxWx3; caption: add a strip below the image with one line for each goal: its text and result,
    absent goals included; note: last line of that strip. Returns uint8 H'xWx3.
    """
    image = np.ascontiguousarray(rgb).copy()
    scale = max(0.4, min(image.shape[:2]) / 900)
    width = max(2, round(3 * scale))
    drawn: list[tuple[int, Detection, Rectangle]] = []
    for number, grounding in enumerate(groundings):
        for detection in grounding.detections:
            coinciding = sum(
                number != other and _overlap(detection.box, placed.box) >= SAME_OBJECT
                for other, placed, _ in drawn
            )
            outline = _nested(detection.box, coinciding * (width + 2), image.shape)
            drawn.append((number, detection, outline))
    for number, _, (x1, y1, x2, y2) in drawn:
        cv2.rectangle(image, (x1, y1), (x2, y2), (255, 255, 255), width + 2, cv2.LINE_AA)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour(number), width, cv2.LINE_AA)
    outlines = [outline for *_, outline in drawn]
    labels: list[Rectangle] = []
    for index, (number, detection, _) in enumerate(drawn):
        text = f"{shorten(groundings[number].goal.text, 28)} {detection.score:.2f}"
        text += f" #{shorten(detection.track_id, 12)}" if detection.track_id else ""
        _label(image, text, index, outlines, labels, colour(number), scale)
    if not caption or not (groundings or note):
        return image
    return np.concatenate([image, _captions(image.shape[1], groundings, scale, note)])


def colour(number: int) -> tuple[int, int, int]:
    """RGB colour of the goal at an index."""
    return PALETTE[number % len(PALETTE)]


def shorten(text: str, limit: int) -> str:
    """Shorten a text to at most limit (>= 5) characters of the built-in font.

    Other characters become '?'. A long text loses its middle, because goals often differ only in their first
    or last words.
    """
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    if len(plain) <= limit:
        return plain
    tail = (limit - 3) // 2
    return f"{plain[: limit - 3 - tail]}...{plain[-tail:]}"


def _nested(box: Sequence[float], margin: int, shape: tuple[int, ...]) -> Rectangle:
    """The box in whole pixels, grown by a margin, or shrunk by it if the grown box would leave the image."""
    x1, y1, x2, y2 = (round(value) for value in box)
    grown = (x1 - margin, y1 - margin, x2 + margin, y2 + margin)
    if min(grown[:2]) >= 0 and grown[2] < shape[1] and grown[3] < shape[0]:
        return grown
    shrunk = (x1 + margin, y1 + margin, x2 - margin, y2 - margin)
    return shrunk if shrunk[0] < shrunk[2] and shrunk[1] < shrunk[3] else (x1, y1, x2, y2)


def _label(
    image: NDArray[Any],
    text: str,
    index: int,
    outlines: Sequence[Rectangle],
    labels: list[Rectangle],
    shade: tuple[int, int, int],
    scale: float,
) -> None:
    """Draw the label of the box outlines[index] where it hides least of other labels and boxes, and append
    its rectangle to labels."""
    (text_width, text_height), base = cv2.getTextSize(text, FONT, scale, 1)
    width, height = text_width + 6, text_height + base + 4
    own = outlines[index]
    places = [place for place in _places(own, width, height, image.shape) if not _shared(place, own)]
    if not places:
        return
    others = [outline for outline in outlines if _overlap(outline, own) < SAME_OBJECT]

    def hidden(place: Rectangle) -> float:
        # A hidden label is lost; a partly covered object is still recognisable.
        return 4.0 * sum(_shared(place, label) for label in labels) + sum(
            _shared(place, other) for other in others
        )

    x, y, right, bottom = min(places, key=hidden)  # the first and nearest of equals
    labels.append((x, y, right, bottom))
    cv2.rectangle(image, (x, y), (right, bottom), shade, cv2.FILLED)
    cv2.putText(image, text, (x + 3, y + text_height + 2), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _places(box: Rectangle, width: int, height: int, shape: tuple[int, ...]) -> Iterator[Rectangle]:
    """Positions for a label inside the image, nearest first: rows above and below the box, then beside it."""
    gap = 3
    rows, columns = shape[0] - height, shape[1] - width
    if rows < 0 or columns < 0:
        return
    left = int(np.clip(box[0], 0, columns))
    top = int(np.clip(box[1], 0, rows))
    for step in range(12):
        for x, y in (
            (left, box[1] - gap - height * (step + 1)),
            (left, box[3] + gap + height * step),
            (box[0] - gap - width, top + height * step),
            (box[2] + gap, top + height * step),
        ):
            if 0 <= x <= columns and 0 <= y <= rows:
                yield x, y, x + width, y + height


def _shared(a: Rectangle, b: Rectangle) -> int:
    """Number of pixels shared by two rectangles."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two boxes."""
    return float(box_iou(np.asarray([a], np.float32), np.asarray([b], np.float32))[0, 0])


def _captions(width: int, groundings: Sequence[Grounding], scale: float, note: str) -> NDArray[Any]:
    tall = round(34 * scale) + 6
    lines = len(groundings) + bool(note)
    strip = np.full((tall * lines + 8, width, 3), 24, np.uint8)
    room = max(16, int(width / (18 * scale)) - 26)
    for number, grounding in enumerate(groundings):
        y = 4 + tall * number
        cv2.rectangle(strip, (6, y + 4), (6 + tall - 10, y + tall - 6), colour(number), cv2.FILLED)
        text = f"{shorten(grounding.goal.text, room)}: {_verdict(grounding)}"
        cv2.putText(strip, text, (tall + 6, y + tall - 8), FONT, scale, (235, 235, 235), 1, cv2.LINE_AA)
    if note:
        y = 4 + tall * len(groundings)
        cv2.putText(
            strip,
            shorten(note, room + 26),
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
    if grounding.status == "pending":
        return "not answered yet"
    if grounding.status == "stale":
        return "the last answer is too old"
    if not count:
        return f"absent (present {grounding.present:.2f})"
    return f"{count} found (present {grounding.present:.2f})"
