"""/diagnostics, once a second: one status for the node, plus one per camera if there are several."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.time import Time

from groma_ros.errors import printable
from groma_ros.grounding.familiarity import Familiarity, sentences
from groma_ros.node.goal_set import NodeConfig
from groma_ros.node.pipeline import Camera
from groma_ros.node.qos_check import NO_EVENTS
from groma_ros.node.statistics import Snapshot, Statistics, total
from groma_ros.runtime.load import Runtime
from groma_ros.runtime.tensorrt.gpu import find_gpu

CAUSES = ("image", "answer", "depth", "goal", "ask", "ground")
"""Kinds of refusals."""


@dataclass(frozen=True)
class Rates:
    """Images received and answered per second since the last report."""

    received: float = 0.0
    answered: float = 0.0


class Meter:
    """Convert counts to rates."""

    def __init__(self) -> None:
        self._before: tuple[float, Snapshot] | None = None

    def rates(self, time: float, counts: Snapshot) -> Rates:
        """Return the rates since the last call; time: seconds of any steady clock."""
        before, self._before = self._before, (time, counts)
        if before is None or time <= before[0]:
            return Rates()
        passed = time - before[0]
        out, out_before = counts.answered + counts.carried, before[1].answered + before[1].carried
        return Rates((counts.received - before[1].received) / passed, (out - out_before) / passed)


def count_values(counts: Snapshot, rates: Rates) -> dict[str, object]:
    """Convert counts to keys and values: one key per fate, per cause of drops and refusals, and per stage."""
    return {
        "received": counts.received,
        "answered": counts.answered,
        "carried": counts.carried,
        "perceived": counts.perceived,
        "dropped": counts.dropped,
        "skipped": counts.skipped,
        **{f"dropped {cause}": count for cause, count in sorted(counts.drops.items())},
        **{f"refused {kind}s": counts.refusals(kind) for kind in CAUSES},
        **{f"refused {cause}": count for cause, count in sorted(counts.refused.items())},
        "rate in Hz": f"{rates.received:.1f}",
        "rate out Hz": f"{rates.answered:.1f}",
        **{f"median ms {stage}": f"{value:.1f}" for stage, value in counts.median_ms.items()},
    }


def status_message(
    name: str, level: bytes, summary: str, hardware: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Build one status of /diagnostics; values are converted to text."""
    pairs: Sequence[KeyValue] = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=summary, hardware_id=hardware, values=pairs)


def memory_mb() -> float:
    """Resident memory of this process in MiB: the current value on Linux, the peak elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / (2**20 if sys.platform == "darwin" else 2**10)


MAX_WARNED = 1000
"""Number of goals that are remembered, so that the log warns once about each."""
UNUSUAL_REPORTS = 5
"""Consecutive reports of an unusual picture after which the log warns."""


class Reports:
    """Publishes the node's reports."""

    def __init__(self, node: Node) -> None:
        self._logger = node.get_logger()
        self._familiarity: Familiarity | None = None
        self._warned: set[str] = set()
        """Goals that were checked for unknown words, so that the log warns once about each."""
        self._judged = 0
        """Number of perceived images when a picture was last judged."""
        self._unusual_reports = 0
        """Consecutive reports of an unusual picture."""
        self._name = node.get_fully_qualified_name().strip("/")
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", 10, event_callbacks=NO_EVENTS
        )
        self._meters: dict[str, Meter] = {}
        self._refusals = 0
        self._engine: dict[str, object] = {}

    def loaded(self, runtime: Runtime | None, familiarity: Familiarity | None = None) -> None:
        """Report this engine and its model's familiarity from now on; None once the model has been freed."""
        self._engine = _engine(runtime) if runtime is not None else {}
        self._familiarity, self._judged, self._unusual_reports = familiarity, 0, 0
        self._warned.clear()

    def publish(
        self,
        now: Time,
        config: NodeConfig,
        cameras: Sequence[Camera],
        own: Statistics,
        questions: int | None,
        failure: str,
        loading: float | None = None,
    ) -> None:
        """Publish the current counts. questions: number of open questions, None while the node is inactive;
        failure: reason of a failed last transition, or ""; loading: seconds the model has been loading, None
        if it is not being loaded."""
        active = questions is not None
        counts = total([own, *(camera.statistics for camera in cameras)])
        refusals = sum(counts.refused.values())
        new, self._refusals = refusals - self._refusals, refusals
        summary = f"answers {len(config.goal_set.goals)} goals" if active else failure or "not active"
        silences = [camera.inputs.silence for camera in cameras if camera.inputs and camera.inputs.silence]
        if active and silences:
            several = f"{len(silences)} of {len(cameras)} cameras send no image"
            summary = silences[0] if len(cameras) == 1 else several
        if loading is not None:
            summary = f"loading the model, {loading:.0f} s so far"
        if new > 0:
            summary += f", {new} messages refused since the last report"
        level = DiagnosticStatus.WARN if new > 0 or silences or not active else DiagnosticStatus.OK
        level = DiagnosticStatus.ERROR if failure and not active and loading is None else level
        values = {
            "goals": len(config.goal_set.goals),
            "goals_version": config.goal_set.version,
            "questions": questions or 0,
            **count_values(counts, self._meter("").rates(perf_counter(), counts)),
            **_ages(cameras),
            **self._unfamiliar(config, cameras, counts.perceived),
            **(_inputs(cameras[0], config) if len(cameras) == 1 else {}),
            "memory MiB": f"{memory_mb():.0f}",
            **self._engine,
        }
        statuses = [
            status_message(
                f"{self._name}: grounding", level, summary, str(self._engine.get("device", "")), values
            )
        ]
        for camera in cameras if len(cameras) > 1 else ():
            statuses.append(self._camera(camera, config, active))
        report = DiagnosticArray(status=statuses)
        report.header.stamp = now.to_msg()
        self._publisher.publish(report)

    def _unfamiliar(self, config: NodeConfig, cameras: Sequence[Camera], perceived: int) -> dict[str, object]:
        """Return the distance of the newest pictures and the goals from the training data; log a warning if
        it is large. perceived: number of images perceived so far."""
        familiarity = self._familiarity
        if familiarity is None:
            return {}
        views = [camera.view for camera in cameras]
        scenes = [view.scene for view in views if view is not None and view.scene is not None]
        unusual = max((familiarity.unusual(scene) for scene in scenes), default=None)
        reported = None
        # Judge the last picture of a stopped camera only once. Stamps cannot tell, because some drivers set
        # none.
        if perceived != self._judged:
            self._judged = perceived
            # Any stream has an unusual picture now and then.
            far = unusual is not None and unusual > 1
            self._unusual_reports = self._unusual_reports + 1 if far else 0
            reported = unusual if self._unusual_reports == UNUSUAL_REPORTS else None
        goals = [goal.text for goal in config.goal_set.goals]
        new = [text for text in dict.fromkeys(goals) if text not in self._warned]
        self._warned.update(new)
        if len(self._warned) > MAX_WARNED:
            self._warned = set(goals)
        for sentence in sentences(familiarity, reported, new):
            self._logger.warning(f"{sentence[0].upper()}{sentence[1:]}.")
        words = [word for text in goals for word in familiarity.unknown_words(text)]
        return {
            **({} if unusual is None else {"unusual picture": f"{unusual:.2f}"}),
            "unknown words": printable(" ".join(dict.fromkeys(words)), 200),
        }

    def _camera(self, camera: Camera, config: NodeConfig, active: bool) -> DiagnosticStatus:
        counts = camera.statistics.snapshot()
        rates = self._meter(camera.name).rates(perf_counter(), counts)
        silence = camera.inputs.silence if camera.inputs is not None else ""
        level = DiagnosticStatus.WARN if silence or not active else DiagnosticStatus.OK
        summary = silence or "answers" if active else "not active"
        values = {**count_values(counts, rates), **_ages([camera]), **_inputs(camera, config)}
        return status_message(f"{self._name}: camera {camera.name}", level, summary, "", values)

    def _meter(self, name: str) -> Meter:
        return self._meters.setdefault(name, Meter())


def _ages(cameras: Sequence[Camera]) -> dict[str, object]:
    """Maximum over the cameras: seconds since the frame of the last answer, and since the last output."""
    ages = [camera.age for camera in cameras if camera.age is not None]
    silent = [perf_counter() - camera.published for camera in cameras if camera.published is not None]
    values: dict[str, object] = {}
    if ages:
        values["answer age s"] = f"{max(ages):.2f}"
    if silent:
        values["published s ago"] = f"{max(silent):.2f}"
    return values


def _inputs(camera: Camera, config: NodeConfig) -> dict[str, object]:
    if camera.inputs is None:
        return {}
    # may be replaced while the inputs are open
    return {**camera.inputs.status(), "sync tolerance": config.settings.sync_tolerance}


def _engine(runtime: Runtime) -> dict[str, object]:
    gpu = find_gpu() if runtime.device != "cpu" else None
    name = f"{gpu.name}, {gpu.memory_mb} MiB" if gpu is not None else "none"
    return {
        "backend": runtime.backend,
        "device": runtime.device,
        "precision": runtime.precision,
        "engine": runtime.reason,
        "gpu": name,
    }
