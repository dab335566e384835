"""The result of replaying one bag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groma_ros.io.bags import RecordedCamera
from groma_ros.replay.compare import Change, Movement
from groma_ros.replay.junit import Suite
from groma_ros.replay.pipeline import STAGES
from groma_ros.replay.plan import (
    Expectation,
    ReplayRun,
    Task,
)
from groma_ros.replay.records import FrameRecord
from groma_ros.replay.truth import Judged


@dataclass(frozen=True, eq=False)
class Result:
    """A bag that was replayed. times: milliseconds by stage, one dictionary a frame; expectation, changes,
    movements, apart: what it was compared with, what differs beyond the tolerances, how far everything moved,
    and what the two runs do not have in common."""

    task: Task
    run: ReplayRun
    camera: RecordedCamera
    records: list[FrameRecord]
    times: list[dict[str, float]]
    judged: list[Judged] = field(default_factory=list)
    expectation: Expectation | None = None
    changes: list[Change] = field(default_factory=list)
    movements: list[Movement] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)

    @property
    def refused(self) -> list[FrameRecord]:
        """Frames whose image could not be read."""
        return [record for record in self.records if record.refused]

    def latency(self) -> dict[str, dict[str, float]]:
        """Median and 95th percentile of each stage over the frames that have it, milliseconds."""
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
    """What is told of a bag, and what can be sent from a process. status: same, changed, or failed; error: a
    sentence for a bag that failed; summary: figures for people and machines."""

    name: str
    status: str
    suite: Suite
    error: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
