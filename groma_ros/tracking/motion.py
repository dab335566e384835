"""Where everything is a little later, by motion alone: for frames that came too fast to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from groma_ros.tracking.executor import TrackedAnswer
from groma_ros.tracking.region_tracker import SECOND
from groma_ros.types import Detection, FloatArray, Grounding


@dataclass(frozen=True, eq=False)
class Motion:
    """What held for one frame, and how fast each box moved. Nothing in it changes, so any thread may read it.

    stamp: of the frame, ns; size: width and height of the picture, pixels; pace: float32 2 by track id,
    pixels a second; limit: seconds that it may be carried on.
    """

    followed: TrackedAnswer
    stamp: int
    size: tuple[int, int]
    pace: Mapping[str, FloatArray]
    limit: float

    def at(self, stamp: int) -> TrackedAnswer | None:
        """What holds for a frame of another stamp (ns); None where that is too long after the known one,
        before it, or nothing is known. Boxes without a track stay where they were; those that have left the
        picture are gone."""
        later = (stamp - self.stamp) / SECOND
        if self.followed.answered is None or not 0 <= later <= self.limit:
            return None
        groundings = tuple(self._carried(grounding, later) for grounding in self.followed.groundings)
        return replace(
            self.followed,
            groundings=groundings,
            age=max(0, stamp - self.followed.answered) / SECOND,
            asked="",
        )

    def _carried(self, grounding: Grounding, later: float) -> Grounding:
        moved = (self._moved(item, later) for item in grounding.detections)
        return replace(grounding, detections=tuple(item for item in moved if item is not None))

    def _moved(self, item: Detection, later: float) -> Detection | None:
        step = (
            self.pace[item.track_id] * np.float32(later)
            if item.track_id in self.pace
            else np.zeros(2, np.float32)
        )
        box = np.asarray(item.box, np.float32) + np.concatenate([step, step])
        x1, y1, x2, y2 = (float(value) for value in np.clip(box, 0, [*self.size, *self.size]))
        return replace(item, box=(x1, y1, x2, y2), region=-1) if x2 > x1 and y2 > y1 else None
