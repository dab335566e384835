"""/diagnostics, once a second: a status of the node, and one of each camera where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.time import Time

from groma_ros.node.diagnostics import Meter, count_values, memory_mb, status_message
from groma_ros.node.goals import Orders
from groma_ros.node.pipeline import Camera
from groma_ros.node.statistics import Statistics, total
from groma_ros.runtime.gpu import find_gpu
from groma_ros.runtime.load import Runtime


class Reports:
    """Writes the reports of a node."""

    def __init__(self, node: Node) -> None:
        self._name = node.get_fully_qualified_name().strip("/")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._meters: dict[str, Meter] = {}
        self._refusals = 0
        self._engine: dict[str, object] = {}

    def loaded(self, runtime: Runtime | None) -> None:
        """Tell of this engine from now on; of none where the model was given back."""
        self._engine = _engine(runtime) if runtime is not None else {}

    def publish(
        self,
        now: Time,
        orders: Orders,
        cameras: Sequence[Camera],
        own: Statistics,
        questions: int | None,
        failure: str,
    ) -> None:
        """Publish what is counted now. questions: open ones, None while the node is not active; failure: why the last transition
        failed, or nothing."""
        active = questions is not None
        counts = total([own, *(camera.statistics for camera in cameras)])
        refusals = sum(counts.refused.values())
        new, self._refusals = refusals - self._refusals, refusals
        summary = f"answers {len(orders.goal_set.goals)} goals" if active else failure or "not active"
        if new > 0:
            summary += f", {new} messages refused since the last report"
        level = DiagnosticStatus.WARN if new > 0 or not active else DiagnosticStatus.OK
        level = DiagnosticStatus.ERROR if failure and not active else level
        values = {
            "goals": len(orders.goal_set.goals),
            "goals_version": orders.goal_set.version,
            "questions": questions or 0,
            **count_values(counts, self._meter("").rates(perf_counter(), counts)),
            **_ages(cameras),
            "memory MiB": f"{memory_mb():.0f}",
            **self._engine,
        }
        statuses = [status_message(f"{self._name}: grounding", level, summary, str(self._engine.get("device", "")), values)]
        for camera in cameras if len(cameras) > 1 else ():
            statuses.append(self._camera(camera, active))
        report = DiagnosticArray(status=statuses)
        report.header.stamp = now.to_msg()
        self._publisher.publish(report)

    def _camera(self, camera: Camera, active: bool) -> DiagnosticStatus:
        counts = camera.statistics.snapshot()
        rates = self._meter(camera.name).rates(perf_counter(), counts)
        silent = active and rates.received == 0
        level = DiagnosticStatus.WARN if silent or not active else DiagnosticStatus.OK
        summary = "not active" if not active else "no image came since the last report" if silent else "answers"
        values = {**count_values(counts, rates), **_ages([camera])}
        return status_message(f"{self._name}: camera {camera.name}", level, summary, "", values)

    def _meter(self, name: str) -> Meter:
        return self._meters.setdefault(name, Meter())


def _ages(cameras: Sequence[Camera]) -> dict[str, object]:
    """The oldest of the cameras' answers: seconds since the frame the language model saw, and since anything was published."""
    ages = [camera.age for camera in cameras if camera.age is not None]
    silent = [perf_counter() - camera.published for camera in cameras if camera.published is not None]
    values: dict[str, object] = {}
    if ages:
        values["answer age s"] = f"{max(ages):.2f}"
    if silent:
        values["published s ago"] = f"{max(silent):.2f}"
    return values


def _engine(runtime: Runtime) -> dict[str, object]:
    gpu = find_gpu() if runtime.device != "cpu" else None
    name = f"{gpu.name}, {gpu.memory_mb} MiB" if gpu is not None else "none"
    return {
        "backend": runtime.backend, "device": runtime.device, "precision": runtime.precision, "engine": runtime.reason, "gpu": name,
    }  # fmt: skip
