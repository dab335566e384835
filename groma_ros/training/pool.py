"""A pool of rendered training scenes on disk: shards made from seeds by parallel processes, read as memory maps.

A shard is `SEED.npy` (uint8 N x S x S x 3) beside `SEED.json` (the objects of every scene). It is written under another name
and renamed when whole, so a stopped run leaves no half shard and the next one goes on where it ended.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.progress import shown
from groma_ros.simulation.scenes import SceneObject, SceneRenderer, SceneSample
from groma_ros.types import Intrinsics

SHARD = 250


@dataclass(frozen=True, eq=False)
class Shard:
    """Scenes of one shard: images uint8 (N, S, S, 3) mapped from disk, and for each its objects and intrinsics."""

    images: NDArray[np.uint8]
    objects: list[tuple[SceneObject, ...]]
    intrinsics: list[Intrinsics]
    seed: int

    def sample(self, index: int) -> SceneSample:
        """A scene without depth, enough to draw goals from."""
        side = self.images.shape[1]
        empty = np.zeros((side, side), np.float32)
        return SceneSample(self.images[index], empty, self.intrinsics[index], self.objects[index], self.seed + index)


def render_shard(folder: str, seed: int, count: int, size: int) -> None:
    """Render scenes seed .. seed + count - 1 of size x size pixels unless the shard is there."""
    target = Path(folder) / f"{seed}.npy"
    if target.exists():
        return
    os.environ.setdefault("LP_NUM_THREADS", "1")
    images, notes = [], []
    with SceneRenderer(size, size, aspect="random") as renderer:
        for number in range(seed, seed + count):
            scene = renderer.render(number)
            images.append(scene.rgb)
            notes.append({"objects": [asdict(o) for o in scene.objects], "intrinsics": asdict(scene.intrinsics)})
    target.with_suffix(".json").write_text(json.dumps(notes))
    partial = target.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, np.stack(images))
    partial.rename(target)


def render_pool(folder: Path, first_seed: int, count: int, size: int, jobs: int) -> None:
    """Render `count` scenes as shards in `jobs` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    end = first_seed + count
    tasks = [(str(folder), seed, min(SHARD, end - seed), size) for seed in range(first_seed, end, SHARD)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for _ in shown(pool.imap_unordered(_render, tasks), len(tasks), "shard"):
            pass


def _render(task: tuple[str, int, int, int]) -> None:
    render_shard(*task)


def open_pool(folder: Path, first_seed: int, count: int) -> list[Shard]:
    """The finished shards of a pool in the order of their seeds. Raises ValueError if there is none."""
    shards = [
        _open(path)
        for seed in range(first_seed, first_seed + count, SHARD)
        if (path := folder / f"{seed}.npy").exists()
    ]
    if not shards:
        raise ValueError(f"No rendered shard of seeds {first_seed} to {first_seed + count - 1} is in {folder}; render the pool first.")
    return shards


def _open(path: Path) -> Shard:
    notes = json.loads(path.with_suffix(".json").read_text())
    return Shard(
        images=np.load(path, mmap_mode="r"),
        # Training looks at pictures only: the boxes in space stay on disk.
        objects=[
            tuple(SceneObject(**{k: _tuple(v) for k, v in o.items() if k != "box_3d"}) for o in note["objects"]) for note in notes
        ],
        intrinsics=[Intrinsics(**note["intrinsics"]) for note in notes],
        seed=int(path.stem),
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

