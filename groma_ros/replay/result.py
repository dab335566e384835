"""The result of replaying one bag."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groma_ros.io.bags import Bag, RecordedCamera
from groma_ros.replay.compare import Change, Movement
from groma_ros.replay.junit import Suite
from groma_ros.replay.pipeline import STAGES
from groma_ros.replay.plan import Expectation, ReplayRun, Task
from groma_ros.replay.records import FrameRecord
from groma_ros.replay.truth import Judged, Unjudged

STATUSES = ("same", "changed", "lost", "failed")
"""Status of a bag: no differences; differences; its messages differ from what it announces; it could not be
replayed."""


@dataclass(frozen=True, eq=False)
class Result:
    """A replayed bag."""

    task: Task
    run: ReplayRun
    bag: Bag
    """Kept open, so that its images can be shown."""
    camera: RecordedCamera
    records: list[FrameRecord]
    times: list[dict[str, float]]
    """Milliseconds by stage, one dictionary per frame."""
    first_refusal: str = ""
    """Why the first refused image could not be read, a sentence."""
    no_depth: str = ""
    """Why there are no 3D boxes, a sentence; empty if the bag has depth."""
    judged: list[Judged] = field(default_factory=list)
    """Answers compared with the truth, one entry per goal."""
    unjudged: list[Unjudged] = field(default_factory=list)
    """Goals of the truth that were judged on no frame."""
    expectation: Expectation | None = None
    """The stored run it was compared with."""
    changes: list[Change] = field(default_factory=list)
    """Differences beyond the tolerances."""
    movements: list[Movement] = field(default_factory=list)
    """Differences of each goal, regardless of tolerances."""
    apart: list[str] = field(default_factory=list)
    """Settings that differ between the two runs."""

    @property
    def refused(self) -> list[FrameRecord]:
        """Frames whose image could not be read."""
        return [record for record in self.records if record.refused]

    @property
    def all_refused(self) -> str:
        """A sentence if no image could be read; else empty."""
        if len(self.refused) < len(self.records):
            return ""
        causes = Counter(record.refused for record in self.refused)
        listed = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
        first = f"; the first: {self.first_refusal}" if self.first_refusal else ""
        return f"None of the {len(self.records)} images of {self.task.bag} could be read ({listed}){first}"

    def latency(self) -> dict[str, dict[str, float]]:
        """Median and 95th percentile of each stage in milliseconds, over the frames that have it."""
        found = {stage: [frame[stage] for frame in self.times if stage in frame] for stage in STAGES}
        return {
            stage: {
                "median_ms": round(float(np.median(values)), 3),
                "p95_ms": round(float(np.percentile(values, 95)), 3),
            }
            for stage, values in found.items()
            if values
        }


@dataclass(frozen=True)
class Outcome:
    """Summary of a bag, picklable."""

    name: str
    status: str
    """One of STATUSES."""
    suite: Suite
    error: str = ""
    """A sentence for a bag that failed or lost messages."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Figures for the report and --json."""
