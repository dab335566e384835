"""`groma eval depth`: 3D boxes from image boxes and depth, on rendered scenes with known truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion
from groma_ros.geometry3d.box3d import DepthError, DepthRule, place
from groma_ros.grounding.grounder import Grounder
from groma_ros.matching import match_boxes
from groma_ros.simulation.dataset import DatasetError, load_dataset, scene_seeds
from groma_ros.simulation.depth_noise import LEVELS, spoil
from groma_ros.simulation.scene_records import SceneRecord
from groma_ros.simulation.scenes import SceneObject, SceneRenderer, SceneSample
from groma_ros.simulation.worlds import DEFAULT_WORLD
from groma_ros.types import Box3D, Frame

WIDTH, HEIGHT = 640, 480
MEASURES = ("centre", "width", "length", "height", "up")
"""Metres; three ratios to the true side; degrees."""
_UNITS = {
    "centre": ("mm", 1000.0),
    "width": ("%", 100.0),
    "length": ("%", 100.0),
    "height": ("%", 100.0),
    "up": ("deg", 1.0),
}
Boxes = Sequence[tuple[SceneObject, tuple[float, ...]]]


def errors(found: Box3D, truth: Box3D) -> dict[str, float]:
    """Errors of a 3D box.

    centre: distance of the centres, metres; width, length: of the shorter and longer horizontal side, height:
    of the vertical side, each as (found - true) / true; up: degrees between the vertical axes.
    """
    centre = float(np.linalg.norm(np.subtract(found.centre, truth.centre)))
    (width, length), (true_width, true_length) = (sorted(box.size[:2]) for box in (found, truth))
    cosine = matrix_from_quaternion(found.quaternion)[:, 2] @ matrix_from_quaternion(truth.quaternion)[:, 2]
    return {
        "centre": centre,
        "width": width / true_width - 1,
        "length": length / true_length - 1,
        "height": found.size[2] / truth.size[2] - 1,
        "up": float(np.degrees(np.arccos(min(1.0, float(cosine))))),
    }


@dataclass
class DepthTally:
    """Errors of 3D boxes."""

    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    """Kind and errors of each placed box."""
    refused: Counter[str] = field(default_factory=Counter)
    """Number of boxes without a 3D box, by cause."""
    seconds: float = 0.0
    """Processor time."""

    def add(
        self, item: SceneObject, box: Sequence[float], frame: Frame, rule: DepthRule | None = None
    ) -> None:
        """Compute the 3D box of an image box and its errors."""
        start = process_time()
        try:
            found = place(frame, box, rule)
        except DepthError as error:
            self.refused[error.cause] += 1
        else:
            assert item.box_3d is not None, "rendered objects have a box in space"
            self.rows.append((item.kind, errors(found.box, item.box_3d)))
        finally:
            self.seconds += process_time() - start

    def report(self) -> dict[str, Any]:
        """Medians and 95th percentiles of absolute errors, overall and by kind."""
        count = len(self.rows) + sum(self.refused.values())
        kinds = sorted({kind for kind, _ in self.rows})
        return {
            "boxes": count,
            "refused": dict(sorted(self.refused.items())),
            **_figures([row for _, row in self.rows]),
            "ms_a_box": round(1000 * self.seconds / count, 2) if count else None,
            "kinds": {kind: _figures([row for name, row in self.rows if name == kind]) for kind in kinds},
        }


def _figures(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in MEASURES if rows else ():
        unit, scale = _UNITS[name]
        values = scale * np.abs(np.array([row[name] for row in rows]))
        result[f"{name}_{unit.replace('%', 'percent')}"] = {
            "median": round(float(np.median(values)), 2),
            "p95": round(float(np.quantile(values, 0.95)), 2),
        }
    return result


def camera_frame(sample: SceneSample, depth: NDArray[Any]) -> Frame:
    """Convert a rendered scene to a camera frame. The renderer's pixel origin is the image corner, that of
    camera_info the centre of the first pixel."""
    k = sample.intrinsics
    return Frame(sample.rgb, depth=depth, intrinsics=replace(k, cx=k.cx - 0.5, cy=k.cy - 0.5))


def evaluate(
    samples: Iterable[SceneSample], grounder: Grounder | None, levels: Sequence[str]
) -> dict[str, dict[str, DepthTally]]:
    """Errors by noise level and source of boxes: "true" boxes and, with a model, its "own" for the objects it
    found."""
    sources = ("true", "own") if grounder else ("true",)
    tallies = {level: {source: DepthTally() for source in sources} for level in levels}
    for sample in samples:
        boxes: dict[str, Boxes] = {"true": [(item, item.box) for item in sample.objects]}
        if grounder:
            boxes["own"] = list(_own_boxes(grounder, sample))
        for level in levels:
            rng = np.random.default_rng([sample.seed, list(LEVELS).index(level)])
            frame = camera_frame(sample, spoil(sample.depth, LEVELS[level], rng))
            for source in sources:
                for item, box in boxes[source]:
                    tallies[level][source].add(item, box, frame)
    return tallies


def _own_boxes(grounder: Grounder, sample: SceneSample) -> Iterator[tuple[SceneObject, tuple[float, ...]]]:
    scene = grounder.perceive(Frame(sample.rgb))
    truth = np.array([item.box for item in sample.objects], np.float32)
    for box, index in zip(scene.boxes, match_boxes(scene.boxes, truth), strict=True):
        if index >= 0:
            yield sample.objects[index], tuple(float(value) for value in box)


def rendered(seed: int, count: int, world: str = DEFAULT_WORLD) -> Iterator[SceneSample]:
    """Render the scenes that `groma scenes --seed --count --world` writes."""
    with SceneRenderer(WIDTH, HEIGHT, world=world) as renderer:
        for scene_seed in scene_seeds(seed, count):
            yield renderer.render(scene_seed)


def folder_samples(folder: Path) -> tuple[int, Iterator[SceneSample]]:
    """Number of scenes, and the scenes, of a folder that `groma scenes --depth` wrote.

    Their depth is stored in whole millimetres; 65535, the end of the range, is read as no depth. Raises
    DatasetError for a folder without scenes, depth or 3D boxes.
    """
    records = load_dataset(folder)
    if not records:
        raise DatasetError(f"{folder} holds no scene; write some with `groma scenes --depth`.")
    for record in records:
        if record.intrinsics is None or any(item.box_3d is None for item in record.objects):
            raise DatasetError(f"{record.image} has no camera or no 3D boxes; `groma scenes` writes them.")
    return len(records), map(_read_sample, records)


def _read_sample(record: SceneRecord) -> SceneSample:
    path = record.image.parents[1] / "depth" / f"{record.image.stem}.png"
    bgr, millimetres = cv2.imread(str(record.image)), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if bgr is None:
        raise DatasetError(f"{record.image} is no picture; write the folder again with `groma scenes`.")
    if millimetres is None or millimetres.dtype != np.uint16 or millimetres.shape != bgr.shape[:2]:
        raise DatasetError(
            f"{path} is no 16-bit depth image of {record.image.name}; write it with `groma scenes --depth`."
        )
    depth = np.where(millimetres == 65535, 0, millimetres).astype(np.float32) / np.float32(1000)
    assert record.intrinsics is not None
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return SceneSample(rgb, depth, record.intrinsics, record.objects, record.seed, world=record.world)


def table(report: dict[str, Any]) -> str:
    """Format the report as text: median / 95th percentile of each absolute error."""
    names = {f"{name}_{unit.replace('%', 'percent')}": f"{name} {unit}" for name, (unit, _) in _UNITS.items()}
    head = (
        f"{'depth':<13}{'boxes':<7}{'placed':>7}{'of':>6}"
        + "".join(f"{name:>15}" for name in names.values())
        + f"{'ms a box':>10}"
    )
    lines = [
        f"scenes {report['scenes']}, {_source(report)}; median / 95th percentile",
        head,
    ]
    for level, sources in report["levels"].items():
        for source, row in sources.items():
            placed = row["boxes"] - sum(row["refused"].values())
            cells = [
                f"{row[key]['median']:.1f} / {row[key]['p95']:.1f}" if key in row else "-" for key in names
            ]
            line = f"{level:<13}{source:<7}{placed:>7}{row['boxes']:>6}" + "".join(
                f"{cell:>15}" for cell in cells
            )
            lines.append(
                line + (f"{row['ms_a_box']:>10.1f}" if row["ms_a_box"] is not None else f"{'-':>10}")
            )
    return "\n".join(lines)


def _source(report: dict[str, Any]) -> str:
    if report.get("data"):
        return f"data {report['data']}"
    return f"seed {report['seed']}, world {report['world']}"
