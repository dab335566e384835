"""`groma eval precisions`: accuracy, size and speed of every precision of a model, relative to float32 in
PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groma_ros.evaluation.scenes import TrueScene, evaluate
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.runtime.bundle import EMBEDDINGS, Bundle
from groma_ros.types import Frame, Goal

TIMED = 20
"""Scenes used for timing, one goal each."""
ORACLE = ("torch", "fp32")


def compare(model: Path, scenes: Sequence[TrueScene]) -> list[dict[str, Any]]:
    """One row per backend and precision, float32 in PyTorch first.

    times: speed relative to that row for a frame with one goal, in processor time on one thread; median of
    the ratios over the same scenes.
    """
    bundle = Bundle.load(model)
    variants = [ORACLE, *(("onnx", name) for name in bundle.precisions)]
    variants += [("llama_cpp", name) for name in bundle.gguf_precisions if bundle.vision_precisions]
    grounders = [
        Grounder.load(model, device="cpu", backend=backend, threads=1, precision=name)
        for backend, name in variants
    ]
    seconds = _timed(grounders, scenes[:TIMED])
    rows = []
    for (backend, name), grounder, taken in shown(
        list(zip(variants, grounders, seconds, strict=True)), len(variants), "precision"
    ):
        report = evaluate(grounder, scenes).report(balanced=True)
        ratios = [slow / fast for slow, fast in zip(seconds[0], taken, strict=True)]
        row = {key: report[key] for key in ("accuracy", "recall", "precision", "description")}
        times = round(statistics.median(ratios), 2)
        rows.append(
            {"backend": backend, "name": name, "bytes": _size(bundle, backend, name), "times": times, **row}
        )
    return rows


def _timed(grounders: Sequence[Grounder], scenes: Sequence[TrueScene]) -> list[list[float]]:
    """Processor seconds of each scene, by grounder. Grounders alternate, so that other load affects all of
    them alike."""
    seconds: list[list[float]] = [[] for _ in grounders]
    for number, scene in enumerate((*scenes[:1], *scenes)):
        goal = [Goal(scene.goals[0].text if scene.goals else "the ball")]
        for grounder, taken in zip(grounders, seconds, strict=True):
            begin = time.process_time()
            grounder.ground(Frame(scene.rgb), goal)
            if number:  # the first run is a warm-up
                taken.append(time.process_time() - begin)
    return seconds


def _size(bundle: Bundle, backend: str, name: str) -> int:
    """Bytes of the files that a variant loads."""
    if backend == "torch":
        return int(bundle.files["model.safetensors"]["bytes"])
    made = bundle.graphs["precisions"]
    vision = name if backend == "onnx" else bundle.vision_precisions[0]
    parts = [made[vision][role]["file"] for role in ("perceive", "encode_regions")] + [
        made[name]["language"]["file"],
        EMBEDDINGS,
    ]
    return sum(int(bundle.files[file]["bytes"]) for file in parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as Markdown; differences of accuracy to the first row in points."""
    kinds = [kind for kind in rows[0]["accuracy"] if kind != "all"]
    lines = [
        f"| backend, precision | MB | times faster | all | points | {' | '.join(kinds)} |",
        "|---" * (5 + len(kinds)) + "|",
    ]
    best = rows[0]["accuracy"]["all"] or 0.0
    for row in rows:
        right = row["accuracy"]
        cells = [
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['times']:.2f}",
            f"{right['all']:.4f}",
            f"{100 * (right['all'] - best):+.2f}",
        ]
        cells += [f"{right[kind]:.3f}" for kind in kinds]
        lines.append(f"| {row['backend']} {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)
