"""Select example frames of a goal and encode their pictures for the report."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.io.bags import Bag, RecordedCamera, recorded_images
from groma_ros.replay.records import FrameRecord, GoalRecord
from groma_ros.types import Detection, Goal, Grounding
from groma_ros.visualization import colour, draw_groundings

WIDTH = 480
QUALITY = 82


@dataclass(frozen=True)
class Shown:
    """An example frame of a goal."""

    number: int
    why: str
    """Reason for showing it, in a few words."""
    found: GoalRecord
    wanted: GoalRecord | None = None
    """Expected answer; None without an expectation."""


def certainty(goal: GoalRecord) -> float:
    """Confidence of an answer: presence times the lowest box score, or 1 - presence without boxes."""
    return goal.present * min(box.score for box in goal.detections) if goal.detections else 1 - goal.present


def examples(
    goal: str,
    records: Sequence[FrameRecord],
    changed: Sequence[int],
    wrong: Sequence[int],
    wanted: Mapping[int, GoalRecord],
) -> list[Shown]:
    """Select up to four frames: the first changed, the first wrong, the most and the least confident.

    changed, wrong: frame numbers, the preferred one first; wanted: expected answers by frame number.
    """
    found = {record.number: item for record in records for item in record.goals if item.goal == goal}
    if not found:
        return []
    ranked = sorted(found, key=lambda number: certainty(found[number]))
    reasons: dict[int, list[str]] = {}
    for number, why in (
        *((number, "changed") for number in changed[:1]),
        *((number, "wrong") for number in wrong[:1]),
        (ranked[-1], f"best: {certainty(found[ranked[-1]]):.2f} sure"),
        (ranked[0], f"worst: {certainty(found[ranked[0]]):.2f} sure"),
    ):
        if number in found:
            reasons.setdefault(number, []).append(why)
    return [
        Shown(number, ", ".join(why), found[number], wanted.get(number)) for number, why in reasons.items()
    ]


def picture_texts(
    bag: Bag, camera: RecordedCamera, shown: Mapping[int, Sequence[Shown]]
) -> dict[tuple[int, int], str]:
    """JPEG pictures as data: URLs by (index of the goal, frame number). shown: frames by index of the
    goal. Reads the bag once more."""
    numbers = {item.number for items in shown.values() for item in items}
    texts = {}
    for shot in recorded_images(bag, camera, numbers.__contains__) if numbers else ():
        for place, items in shown.items():
            for item in items:
                if shot.frame is not None and item.number == shot.number:
                    texts[place, item.number] = _picture(shot.frame.rgb, item, place)
    return texts


def _picture(rgb: NDArray[Any], shown: Shown, place: int) -> str:
    """Draw the goal's boxes in its colour and expected ones dashed in white; at most WIDTH pixels wide."""
    scale = min(1.0, WIDTH / rgb.shape[1])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    image = np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb)
    boxes = tuple(_scaled(box.box, scale, box.score, box.id) for box in shown.found.detections)
    # Preceding empty answers select the goal's colour on the page.
    others = [Grounding(Goal(""), (), 0.0, 0.0)] * place
    image = draw_groundings(
        image, [*others, Grounding(Goal(shown.found.goal), boxes, shown.found.present, 0.0)], caption=False
    )
    for box in shown.wanted.detections if shown.wanted else ():
        _dashed(image, _scaled(box.box, scale, box.score, "").box)
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    assert good, "a uint8 picture of three channels can be written as JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def css_colour(place: int) -> str:
    """CSS colour of the goal at an index."""
    return "rgb({} {} {})".format(*colour(place))


def _scaled(box: Sequence[float], scale: float, score: float, track: str) -> Detection:
    x1, y1, x2, y2 = (value * scale for value in box)
    return Detection((x1, y1, x2, y2), score, 0, track)


def _dashed(image: NDArray[Any], box: Sequence[float], step: int = 9) -> None:
    x1, y1, x2, y2 = (round(value) for value in box)
    for (ax, ay), (bx, by) in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        count = max(1, int(np.hypot(bx - ax, by - ay) // step))
        corners = np.linspace((ax, ay), (bx, by), count + 1).round().astype(int)
        for start, end in list(pairwise(corners))[::2]:
            cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), (0, 0, 0), 3, cv2.LINE_AA)
            cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), (255, 255, 255), 1, cv2.LINE_AA)
