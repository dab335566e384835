"""Pools of scenes that another simulator renders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import Settings, load_dataset, write_dataset
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.world_objects import avoided_among
from groma_ros.training.config import Scenes
from groma_ros.training.pool import open_pool, render_pool


def test_scenes_of_another_simulator_become_square_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def render(module: str, arguments: Sequence[str]) -> int:
        """Write tables in the place of the simulator's rooms."""
        ran.append(module)
        options = dict(word[2:].split("=", 1) for word in arguments)
        assert options["world"] == "miniworld"
        settings = Settings(int(options["seed"]), int(options["width"]), int(options["height"]))
        write_dataset(Path(options["out"]), int(options["count"]), settings, progress=False)
        return 0

    monkeypatch.setattr(other_worlds, "run_elsewhere", render)
    scenes = Scenes(2_000_000, 3, 64, "miniworld")
    render_pool(tmp_path, scenes, 1)
    render_pool(tmp_path, scenes, 1)  # the shard is there
    assert ran == ["groma_ros.commands.scenes"]
    (shard,) = open_pool(tmp_path, [scenes])
    assert (shard.images.shape, shard.world, shard.seed) == ((3, 64, 64, 3), "miniworld", 2_000_000)
    for index, record in enumerate(load_dataset(tmp_path / "miniworld-scenes-2")):
        found = shard.sample(index)
        assert [o.kind for o in found.objects] == [o.kind for o in record.objects]
        scale = [64 / 512, 64 / 384] * 2
        for square, whole in zip(found.objects, record.objects):
            assert square.box == pytest.approx(np.multiply(whole.box, scale))
        assert (found.intrinsics.width, found.intrinsics.height) == (64, 64)


def test_pools_of_another_simulator_that_cannot_be_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="first_seed 2000250 of the world robosuite must be a multiple"):
        render_pool(tmp_path, Scenes(2_000_250, 3, 64, "robosuite"), 1)
    monkeypatch.setattr(other_worlds, "run_elsewhere", lambda module, arguments: 1)
    with pytest.raises(RuntimeError, match="groma scenes could not render the world robosuite"):
        render_pool(tmp_path, Scenes(2_000_000, 3, 64, "robosuite"), 1)
    assert not list(tmp_path.glob("*.npy"))


def test_words_that_goals_about_annotated_objects_avoid() -> None:
    def thing(kind: str, colour: str) -> SceneObject:
        return SceneObject(kind, colour, (0, 0, 9, 9), 1.0, 81, (0, 0, 1), (1, 1, 1))

    avoided = avoided_among([thing("barrel", "blue"), thing("door", "")])
    assert {"cylinder", "can", "cyan", "wall", "box", "black"} <= avoided
    assert "barrel" not in avoided
    # A barrel that is painted is of no doubtful colour.
    assert "cyan" not in avoided_among([thing("barrel", "red")])
