"""Compare TensorRT engines with the network in PyTorch: regions, region tokens, answers and time on the same
pictures."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.atomic_write import replacing
from groma_ros.bench.workload import mixed_goals, pictures, to_frame
from groma_ros.boxes import box_iou
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.runtime.bundle import WEIGHTS, Bundle
from groma_ros.types import Frame, Grounding, Scene

IOU = 0.98
"""Minimum IoU of equal detections."""
SCORES = {"fp32": 0.02, "fp16": 0.02, "int8": 0.05, "int4": 0.05}
"""Maximum difference of their scores, by precision."""
_GOALS = 4
_WARM_UP = 5


@dataclass(frozen=True)
class EngineCheck:
    """The result of the comparison."""

    oracle: str
    """What the engines were compared with."""
    precision: str
    pictures: int
    same_scenes: int
    """Pictures on which both selected the same regions."""
    box_pixels: float
    """Maximum difference on those pictures; likewise score and region_tokens, the latter relative to the
    largest magnitude."""
    score: float
    region_tokens: float
    answers: int
    same_answers: int
    """Number of equal answers, out of `answers`."""
    engine_ms: float
    """Median duration of one vision run, milliseconds; likewise oracle_ms."""
    oracle_ms: float

    @property
    def ok(self) -> bool:
        return self.same_answers == self.answers


def check_engines(bundle: Bundle, precision: str, count: int, seed: int) -> EngineCheck:
    """Compare on `count` pictures. Raises the errors of loading a model."""
    engine = Grounder.load(bundle, backend="tensorrt", precision=precision)
    backend = "torch" if importlib.util.find_spec("torch") and WEIGHTS in bundle.files else "onnx"
    oracle = Grounder.load(bundle, backend=backend, device="cpu", precision="fp32")
    frames = [to_frame(jpeg) for jpeg in pictures(count, seed)[0]]
    for frame in frames[:1] * _WARM_UP:
        engine.perceive(frame)
    goals = mixed_goals(_GOALS)
    scenes: list[tuple[Scene, Scene]] = []
    answers: list[tuple[Grounding, Grounding]] = []
    times: tuple[list[float], list[float]] = ([], [])
    for frame in shown(frames, len(frames), "picture"):
        seen = tuple(
            _timed(grounder.perceive, frame, taken) for grounder, taken in zip((engine, oracle), times)
        )
        scenes.append((seen[0], seen[1]))
        answers += zip(engine.ground(seen[0], goals), oracle.ground(seen[1], goals))
    agreeing = [pair for pair in scenes if _same_boxes(pair[0].boxes, pair[1].boxes)]
    return EngineCheck(
        oracle=f"{backend} fp32 on the CPU",
        precision=precision,
        pictures=count,
        same_scenes=len(agreeing),
        box_pixels=_worst(np.abs(a.boxes - b.boxes).max() for a, b in agreeing),
        score=_worst(np.abs(a.objectness - b.objectness).max() for a, b in agreeing),
        region_tokens=_worst(
            np.abs(a.region_tokens - b.region_tokens).max() / np.abs(b.region_tokens).max()
            for a, b in agreeing
        ),
        answers=len(answers),
        same_answers=sum(same_answer(found, wanted, SCORES[precision]) for found, wanted in answers),
        engine_ms=_median_ms(times[0]),
        oracle_ms=_median_ms(times[1]),
    )


def same_answer(found: Grounding, wanted: Grounding, score: float) -> bool:
    """Whether two answers have the same boxes, with scores that differ by at most `score`."""
    if len(found.detections) != len(wanted.detections):
        return False
    if not found.detections:
        return True
    boxes = [np.array([item.box for item in answer.detections], np.float32) for answer in (found, wanted)]
    overlap = box_iou(boxes[0], boxes[1])
    match = overlap.argmax(1)
    apart = [abs(item.score - wanted.detections[index].score) for item, index in zip(found.detections, match)]
    return (
        sorted(match) == list(range(len(match))) and bool(overlap.max(1).min() >= IOU) and max(apart) <= score
    )


def _same_boxes(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether both have the same boxes in the same order."""
    return found.shape == wanted.shape and bool(np.diagonal(box_iou(found, wanted)).min() >= IOU)


def _timed(perceive: Callable[[Frame], Scene], frame: Frame, taken: list[float]) -> Scene:
    begin = time.perf_counter()
    scene = perceive(frame)
    taken.append(time.perf_counter() - begin)
    return scene


def _median_ms(seconds: Sequence[float]) -> float:
    return round(1000 * float(np.median(seconds)), 3)


def _worst(values: Iterable[Any]) -> float:
    return float(f"{max((float(value) for value in values), default=0.0):.3g}")


def write_log(path: Path, document: dict[str, Any]) -> None:
    """Write the result of `groma build-engine --check` as Markdown, starting with hardware and versions."""
    machine, found = document["machine"], document["check"]
    lines = [
        f"# {document['model']} on {machine['gpu']}, TensorRT {document['tensorrt']}",
        "",
        f"Written by `groma build-engine --check`. Compute capability {machine['capability']}, "
        f"{machine['memory_mb']} MB of memory, a",
        f"driver for CUDA {machine['driver']}. Pictures: {found['pictures']}; compared with "
        f"{found['oracle']}.",
        "",
        "| graph | precision | MB | built in |",
        "|---|---|---|---|",
    ]
    for row in document["engines"]:
        built = "in the cache" if row["reused"] else f"{row['seconds']:.1f} s"
        lines.append(f"| {row['graph']} | {row['precision']} | {row['bytes'] / 1e6:.1f} | {built} |")
    lines += ["", "| what | value |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in found.items()]
    lines += [
        "",
        "The engines answer as the network does."
        if document["ok"]
        else "The engines do NOT answer as the network does.",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write("\n".join(lines).encode())
