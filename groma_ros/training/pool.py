"""A pool of rendered training scenes on disk: shards made from seeds by parallel processes, read as memory
maps.

A shard is `WORLD-SEED.npy` (uint8 N x S x S x 3) beside `WORLD-SEED.json` (the objects of every scene). It is
written under another name and renamed when complete, so an interrupted run leaves no partial shard and the
next run continues after the last one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.atomic_write import AtomicFile, replacing, write_file
from groma_ros.progress import shown
from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import SEED_STRIDE, Settings, render_elsewhere
from groma_ros.simulation.scene_records import SceneRecord
from groma_ros.simulation.scenes import SceneObject, SceneRenderer, SceneSample
from groma_ros.training.config import Scenes
from groma_ros.types import Intrinsics
from groma_ros.worker_pool import map_in_processes

SHARD = 250
_ELSEWHERE = (512, 384)  # size of the pictures of other simulators before they are stretched to squares


class Pictures(Protocol):
    """Pictures with their objects, independent of how they are stored."""

    @property
    def name(self) -> str:
        """Name that is unique for the files they come from."""

    @property
    def mirrors(self) -> bool:
        """Whether the pictures may be mirrored for training."""

    @property
    def images(self) -> Any:
        """A sequence of uint8 HxWx3."""

    @property
    def objects(self) -> list[tuple[SceneObject, ...]]:
        """Objects of each picture."""

    def sample(self, index: int) -> SceneSample:
        """Return a picture with the annotations from which goals are drawn."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Scenes of one shard: images uint8 (N, S, S, 3) mapped from disk, and for each its objects and
    intrinsics."""

    name: str
    images: NDArray[np.uint8]
    objects: list[tuple[SceneObject, ...]]
    intrinsics: list[Intrinsics]
    seed: int
    world: str = "table"
    mirrors: bool = True

    def sample(self, index: int) -> SceneSample:
        """A scene without depth, enough to draw goals from."""
        side = self.images.shape[1]
        empty = np.zeros((side, side), np.float32)
        return SceneSample(
            self.images[index],
            empty,
            self.intrinsics[index],
            self.objects[index],
            self.seed + index,
            world=self.world,
        )


def _path(folder: Path, world: str, seed: int) -> Path:
    return folder / f"{world}-{seed}.npy"


def render_shard(folder: str, seed: int, count: int, size: int, world: str) -> None:
    """Render scenes seed .. seed + count - 1 of size x size pixels unless the shard is there."""
    target = _path(Path(folder), world, seed)
    if target.exists():
        return
    os.environ.setdefault("LP_NUM_THREADS", "1")
    with SceneRenderer(size, size, aspect="random", world=world) as renderer:
        _write_shard(target, [renderer.render(number) for number in range(seed, seed + count)])


def _write_shard(target: Path, scenes: Sequence[SceneSample]) -> None:
    notes = [
        {"objects": [asdict(o) for o in scene.objects], "intrinsics": asdict(scene.intrinsics)}
        for scene in scenes
    ]
    write_file(target.with_suffix(".json"), json.dumps(notes).encode())
    with replacing(target) as stream:
        np.save(stream, np.stack([scene.rgb for scene in scenes]).view(AtomicFile))


def render_pool(folder: Path, scenes: Scenes, jobs: int) -> None:
    """Render scenes as shards in `jobs` processes. Raises ValueError for seeds of another simulator that
    `groma scenes` cannot name, RuntimeError if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    if scenes.world in other_worlds.WORLDS:
        _render_elsewhere(folder, scenes, jobs)
        return
    end = scenes.first_seed + scenes.scenes
    starts = range(scenes.first_seed, end, SHARD)
    tasks = [(str(folder), seed, min(SHARD, end - seed), scenes.size, scenes.world) for seed in starts]
    with closing(map_in_processes(_no_state, _render, tasks, jobs)) as done:
        for _ in shown(done, len(tasks), "shard"):
            pass


def _render_elsewhere(folder: Path, scenes: Scenes, jobs: int) -> None:
    """Render scenes of another simulator with `groma scenes`, in its own environment, and make shards of
    them."""
    targets = {
        start: _path(folder, scenes.world, scenes.first_seed + start)
        for start in range(0, scenes.scenes, SHARD)
    }
    if all(target.exists() for target in targets.values()):
        return
    seed, first = divmod(scenes.first_seed, SEED_STRIDE)
    if first:
        raise ValueError(
            f"first_seed {scenes.first_seed} of the world {scenes.world} must be a multiple of "
            f"{SEED_STRIDE}: groma scenes, which renders it, takes data seeds."
        )
    out = folder / f"{scenes.world}-scenes-{seed}"
    width, height = _ELSEWHERE
    settings = Settings(seed, width, height, world=scenes.world)
    records = render_elsewhere(out, scenes.scenes, settings, jobs)
    for start, target in targets.items():
        if not target.exists():
            _write_shard(target, [_stretched(r, scenes.size) for r in records[start : start + SHARD]])


def _stretched(record: SceneRecord, size: int) -> SceneSample:
    """Read a scene of a folder as a picture of size x size pixels, without depth. Raises ValueError if its
    picture cannot be read."""
    picture: Any = cv2.imread(str(record.image))
    if picture is None or record.intrinsics is None:
        raise ValueError(
            f"{record.image} or its intrinsics cannot be read; remove its folder to render it again."
        )
    sample = SceneSample(
        picture[..., ::-1],
        np.zeros((0, 0), np.float32),
        record.intrinsics,
        record.objects,
        record.seed,
        world=record.world,
    )
    return sized(sample, size)


def sized(sample: SceneSample, size: int) -> SceneSample:
    """Resize the picture of a scene to size x size pixels, as the network does, with its boxes."""
    high, wide = sample.rgb.shape[:2]
    if (high, wide) == (size, size):
        return sample
    across, down = size / wide, size / high
    objects = tuple(
        replace(
            o,
            box=(o.box[0] * across, o.box[1] * down, o.box[2] * across, o.box[3] * down),
            area=max(1, round(o.area * across * down)),
        )
        for o in sample.objects
    )
    k = replace(sample.intrinsics, width=size, height=size)
    picture: Any = cv2.resize(np.ascontiguousarray(sample.rgb), (size, size), interpolation=cv2.INTER_AREA)
    return replace(sample, rgb=picture, objects=objects, intrinsics=k)


def _no_state() -> None:
    """Initializer of a rendering process, which needs no state: each shard opens its own renderer."""


def _render(_: None, task: tuple[str, int, int, int, str]) -> None:
    render_shard(*task)


def open_pool(folder: Path, pool: Sequence[Scenes], count: int = 0) -> list[Shard]:
    """Open the finished shards of the first `count` scenes (0: all) of each pool, by seed. Raises ValueError
    if there is none."""
    paths = []
    for scenes in pool:
        end = scenes.first_seed + min(count or scenes.scenes, scenes.scenes)
        paths += [_path(folder, scenes.world, seed) for seed in range(scenes.first_seed, end, SHARD)]
    shards = [_open(path) for path in paths if path.exists()]
    if not shards:
        seeds = ", ".join(
            f"{scenes.first_seed} to {scenes.first_seed + scenes.scenes - 1}" for scenes in pool
        )
        raise ValueError(f"No rendered shard of seeds {seeds} is in {folder}; render the pool first.")
    return shards


def _open(path: Path) -> Shard:
    notes = json.loads(path.with_suffix(".json").read_text())
    return Shard(
        name=path.stem,
        images=np.load(path, mmap_mode="r"),
        # Training does not need the 3D boxes.
        objects=[
            tuple(
                SceneObject(**{k: _tuple(v) for k, v in o.items() if k != "box_3d"}) for o in note["objects"]
            )
            for note in notes
        ],
        intrinsics=[Intrinsics(**note["intrinsics"]) for note in notes],
        seed=int(path.stem.rpartition("-")[2]),
        world=path.stem.rpartition("-")[0],
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
