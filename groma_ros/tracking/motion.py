"""Motion model: extrapolate the boxes of a frame to frames that arrive too fast to be perceived."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from groma_ros.tracking.questions import TrackedAnswer, stale
from groma_ros.tracking.region_tracker import SECOND
from groma_ros.types import Detection, FloatArray, Grounding


@dataclass(frozen=True, eq=False)
class Motion:
    """Answers for one frame and the velocities of their boxes. Immutable, so any thread may read it."""

    tracked: TrackedAnswer
    stamp: int
    """Of the frame, ns."""
    size: tuple[int, int]
    """Width and height of the image, pixels."""
    velocities: Mapping[str, FloatArray]
    """float32 2 by track id, pixels a second."""
    limit: float
    """Seconds that boxes may be carried on."""
    stream: int = 0
    """See `StreamContinuity`."""
    max_age: float = math.inf
    """Age of an answer in seconds beyond which it is stale."""

    def at(self, stamp: int) -> TrackedAnswer:
        """Return the answers for another stamp (ns) of the same stream, for an image of the same size. Boxes
        without a track do not move, boxes that leave the image are removed. Beyond `limit` answers with boxes
        are stale, and all of them beyond `max_age`."""
        later = (stamp - self.stamp) / SECOND
        near = abs(later) <= self.limit
        answered = self.tracked.answered
        age = max(0, stamp - answered) / SECOND if answered is not None else 0.0
        carried = (
            stale(item)
            if age > self.max_age or not (near or item.status == "absent")
            else self._carried(item, later)
            for item in self.tracked.groundings
        )
        return replace(self.tracked, groundings=tuple(carried), age=age, asked="", failure=None)

    def _carried(self, grounding: Grounding, later: float) -> Grounding:
        boxes, others = (
            tuple(item for item in (self._moved(box, later) for box in group) if item is not None)
            for group in (grounding.detections, grounding.alternatives)
        )
        if grounding.detections and not boxes:
            return stale(grounding)
        return replace(grounding, detections=boxes, alternatives=others)

    def _moved(self, item: Detection, later: float) -> Detection | None:
        step = (
            self.velocities[item.track_id] * np.float32(later)
            if item.track_id in self.velocities
            else np.zeros(2, np.float32)
        )
        box = np.asarray(item.box, np.float32) + np.concatenate([step, step])
        x1, y1, x2, y2 = (float(value) for value in np.clip(box, 0, [*self.size, *self.size]))
        return replace(item, box=(x1, y1, x2, y2), region=-1) if x2 > x1 and y2 > y1 else None
