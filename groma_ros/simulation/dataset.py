"""`groma scenes`: a folder of rendered scenes with COCO-style annotations and goals, and its reader (see
docs/scenes.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from groma_ros.atomic_write import write_file
from groma_ros.json_files import load_object
from groma_ros.progress import shown
from groma_ros.simulation import other_worlds
from groma_ros.simulation.goal_generator import SceneGoal, draw_goals
from groma_ros.simulation.scene_records import SceneRecord, read_records
from groma_ros.simulation.scenes import SceneRenderer, SceneSample, check_camera
from groma_ros.simulation.vocabulary import FIRST_WORDS, KIND_NAMES, Vocabulary
from groma_ros.simulation.world_objects import WorldSample, world_goals
from groma_ros.simulation.worlds import DEFAULT_WORLD, words_of, world_of
from groma_ros.worker_pool import map_in_processes

ANNOTATIONS = "annotations.json"
SEED_STRIDE = 1_000_000
_FORMAT = 1
_JPEG_QUALITY = 95


class DatasetError(ValueError):
    """Error in a folder of scenes that is written or read; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Settings:
    """Settings of a folder of scenes."""

    seed: int
    width: int = 640
    height: int = 480
    aspect: str | None = None
    """See `SceneRenderer`."""
    supersample: int = 1
    goals_per_kind: int = 1
    depth: bool = False
    """Whether to write depth images too."""
    world: str = DEFAULT_WORLD
    """See `SceneRenderer`."""

    def camera_aspect(self) -> float | Literal["random"] | None:
        """The aspect as `SceneRenderer` takes it. Raises DatasetError if it is neither a number nor
        random."""
        if self.aspect is None:
            return None
        if self.aspect == "random":
            return "random"
        try:
            return float(self.aspect)
        except ValueError as error:
            raise DatasetError(
                f"The aspect {self.aspect!r} is neither a number nor random; give width / height."
            ) from error

    def renderer(self) -> SceneRenderer | other_worlds.Renderer:
        """Create a renderer with these settings.

        Raises DatasetError for settings that another simulator's world does not support.
        """
        if self.world in other_worlds.WORLDS:
            if self.aspect is not None or self.supersample != 1:
                raise DatasetError(
                    f"The world {self.world} knows neither --aspect nor --supersample; leave them out."
                )
            return other_worlds.make_renderer(self.world, self.width, self.height)
        return SceneRenderer(self.width, self.height, self.camera_aspect(), self.supersample, self.world)


def scene_seeds(seed: int, count: int) -> range:
    """Seeds of the renderer for the `count` scenes of data seed `seed`: disjoint for different data seeds.

    Raises ValueError if they would not be: count above 1,000,000 or a negative number.
    """
    if not 0 <= count <= SEED_STRIDE or seed < 0:
        raise ValueError(
            f"Seed {seed} with {count} scenes is out of range: take a seed from 0 and at most {SEED_STRIDE} "
            "scenes."
        )
    return range(seed * SEED_STRIDE, seed * SEED_STRIDE + count)


def scene_goals(sample: SceneSample, per_kind: int = 1, words: Vocabulary = FIRST_WORDS) -> list[SceneGoal]:
    """Draw the goals of a scene from its own seed."""
    if isinstance(sample, WorldSample):
        return world_goals(sample, np.random.default_rng([sample.seed, 7]), per_kind)
    return draw_goals(sample, np.random.default_rng([sample.seed, 7]), per_kind, words=words)


def _encode(extension: str, picture: Any, options: list[int]) -> bytes:
    done, data = cv2.imencode(extension, picture, options)
    if not done:
        raise DatasetError(f"OpenCV could not encode a picture as {extension}.")
    return bytes(data.tobytes())


def _write_scene(sample: SceneSample, name: str, out: Path, settings: Settings) -> None:
    """Write a scene; its record comes last, so a scene is complete if its record exists."""
    jpeg = _encode(".jpg", sample.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    write_file(out / "images" / f"{name}.jpg", jpeg)
    if settings.depth:
        millimetres = np.clip(np.rint(sample.depth * 1000), 0, 65535).astype(np.uint16)
        write_file(out / "depth" / f"{name}.png", _encode(".png", millimetres, []))
    record = {
        "seed": sample.seed,
        "world": settings.world
        if settings.world in other_worlds.WORLDS
        else world_of(settings.world, sample.seed),
        "intrinsics": asdict(sample.intrinsics),
        "objects": [asdict(item) for item in sample.objects],
        "goals": [
            asdict(goal) for goal in scene_goals(sample, settings.goals_per_kind, words_of(settings.world))
        ],
    }
    write_file(out / "records" / f"{name}.json", json.dumps(record).encode())


def _start_renderer(settings: Settings) -> SceneRenderer | other_worlds.Renderer:
    """Prepare a worker process."""
    os.environ.setdefault("LP_NUM_THREADS", "1")  # the processes already share the cores
    cv2.setNumThreads(1)
    return settings.renderer()


@dataclass(frozen=True)
class _Render:
    """Render and write the scene of a seed in a worker process."""

    out: Path
    settings: Settings

    def __call__(self, renderer: SceneRenderer | other_worlds.Renderer, seed: int) -> None:
        _write_scene(renderer.render(seed), _name(seed), self.out, self.settings)


def _name(seed: int) -> str:
    return f"{seed % SEED_STRIDE:06d}"


def _render_all(seeds: list[int], out: Path, settings: Settings, jobs: int) -> Iterator[int]:
    """Render the scenes; yields a number for each one written."""
    render = _Render(out, settings)
    if jobs <= 1 or len(seeds) == 1:
        with settings.renderer() as renderer:
            for number, seed in enumerate(seeds):
                render(renderer, seed)
                yield number
        return
    with closing(map_in_processes(_start_renderer, render, seeds, jobs, [(settings,)])) as done:
        for number, _ in done:
            yield number


def _check_settings(out: Path, settings: Settings) -> None:
    """Raise DatasetError for a folder that was started with other settings."""
    path = out / "settings.json"
    wanted = {"format": _FORMAT, **asdict(settings)}
    if path.exists():
        try:
            found = load_object(path)
        except ValueError as error:
            raise DatasetError(
                f"{str(error).rstrip('.')}; remove the folder or choose another --out."
            ) from error
        if {"world": "table", **found} != wanted:
            raise DatasetError(
                f"{out} was begun with other settings ({found}); remove it or choose another --out."
            )
        return
    for folder in ("images", "records", *(["depth"] if settings.depth else [])):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(wanted).encode())


def write_dataset(out: Path, count: int, settings: Settings, jobs: int = 1, progress: bool = True) -> Path:
    """Render the scenes of `settings` that `out` lacks, in `jobs` processes, and write its annotations.

    Returns the annotations' path. Raises DatasetError for a folder started with other settings, ValueError
    for settings that cannot be rendered, RenderingUnavailable if nothing can render.
    """
    seeds = scene_seeds(settings.seed, count)
    check_camera(settings.width, settings.height, settings.camera_aspect(), settings.supersample)
    _check_settings(out, settings)
    missing = [seed for seed in seeds if not (out / "records" / f"{_name(seed)}.json").exists()]
    if missing:
        done = _render_all(missing, out, settings, jobs)
        for _ in shown(done, len(missing), "scene") if progress else done:
            pass
    path = out / ANNOTATIONS
    write_file(path, json.dumps(_annotations(out, seeds)).encode())
    return path


def render_elsewhere(out: Path, count: int, settings: Settings, jobs: int = 1) -> list[SceneRecord]:
    """Render scenes of another simulator with `groma scenes` in its own environment and return them.

    Of the settings only seed, world and size are used. Raises SimulatorUnavailable without that environment,
    RuntimeError if it fails.
    """
    options = {"seed": settings.seed, "count": count, "out": out, "world": settings.world, "jobs": jobs}
    options |= {"width": settings.width, "height": settings.height}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    if other_worlds.run_elsewhere("groma_ros.commands.scenes", arguments) != 0:
        raise RuntimeError(f"groma scenes could not render the world {settings.world}; its message is above.")
    return load_dataset(out)


def _annotations(out: Path, seeds: range) -> dict[str, Any]:
    """The COCO document of the finished records, ids from 1 in the order of the scenes."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    for image_id, seed in enumerate(seeds, 1):
        record = json.loads((out / "records" / f"{_name(seed)}.json").read_text())
        k = record["intrinsics"]
        size = {"width": k["width"], "height": k["height"]}
        place = {"seed": record["seed"], "world": record.get("world", "table"), "intrinsics": k}
        images.append({"id": image_id, "file_name": f"images/{_name(seed)}.jpg", **size, **place})
        first = len(annotations) + 1
        annotations += [
            _annotation(first + index, image_id, item) for index, item in enumerate(record["objects"])
        ]
        for goal in record["goals"]:
            targets = [first + index for index in goal["targets"]]
            said = {"text": goal["text"], "kind": goal["kind"], "annotation_ids": targets}
            goals.append({"id": len(goals) + 1, "image_id": image_id, **said})
    categories = [{"id": index, "name": kind} for index, kind in enumerate(KIND_NAMES, 1)]
    info = {"description": "Rendered scenes with goals", "format": _FORMAT}
    return {
        "info": info,
        "images": images,
        "categories": categories,
        "annotations": annotations,
        "goals": goals,
    }


def _annotation(annotation_id: int, image_id: int, item: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = item["box"]
    coco = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": KIND_NAMES.index(item["kind"]) + 1,
        "iscrowd": 0,
    }
    rest = {
        key: item[key]
        for key in ("area", "colour", "visible", "position", "size", "box_3d")
        if item.get(key) is not None
    }
    return {**coco, "bbox": [x1, y1, x2 - x1, y2 - y1], **rest}


def load_dataset(folder: Path) -> list[SceneRecord]:
    """Read the scenes of a folder in the format of docs/scenes.md, in the order of its images.

    Raises DatasetError naming the entry if the annotations are missing or invalid.
    """
    path = Path(folder) / ANNOTATIONS
    if not path.is_file():
        raise DatasetError(f"The file {path} does not exist; give a folder that `groma scenes` wrote.")
    try:
        return read_records(path)
    except ValueError as error:
        raise DatasetError(f"{str(error).rstrip('.')}; docs/scenes.md describes the form.") from error
