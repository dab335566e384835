"""Pools of scenes that another simulator renders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import load_dataset
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.simulation.world_objects import avoided_among
from groma_ros.training.config import Scenes
from groma_ros.training.packing import _goals
from groma_ros.training.pool import open_pool, render_pool
from groma_ros.types import Intrinsics
from tests.pictures import read_picture
from tests.simulators import need_simulators


def test_scenes_of_another_simulator_become_square_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_simulators()
    scenes = Scenes(2_000_000, 3, 64, "miniworld")
    render_pool(tmp_path, scenes, 1)
    (shard,) = open_pool(tmp_path, [scenes])
    assert (shard.images.shape, shard.world, shard.seed) == ((3, 64, 64, 3), "miniworld", 2_000_000)
    scale = [64 / 512, 64 / 384] * 2
    for index, record in enumerate(load_dataset(tmp_path / "miniworld-scenes-2")):
        found = shard.sample(index)
        assert len(found.objects) >= 3
        assert [o.kind for o in found.objects] == [o.kind for o in record.objects]
        for square, whole in zip(found.objects, record.objects):
            assert square.box == pytest.approx(np.multiply(whole.box, scale))
        assert (found.intrinsics.width, found.intrinsics.height) == (64, 64)
        halved = cv2.resize(read_picture(record.image)[..., ::-1], (64, 64), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(found.rgb, halved)

    def refuse(module: str, arguments: Sequence[str]) -> int:
        raise AssertionError("A finished shard is not rendered again.")

    monkeypatch.setattr(other_worlds, "run_elsewhere", refuse)
    render_pool(tmp_path, scenes, 1)


def test_pools_of_another_simulator_that_cannot_be_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="first_seed 2000250 of the world robosuite must be a multiple"):
        render_pool(tmp_path, Scenes(2_000_250, 3, 64, "robosuite"), 1)
    monkeypatch.setattr(other_worlds, "run_elsewhere", lambda module, arguments: 1)
    with pytest.raises(RuntimeError, match="groma scenes could not render the world robosuite"):
        render_pool(tmp_path, Scenes(2_000_000, 3, 64, "robosuite"), 1)
    assert not list(tmp_path.glob("*.npy"))


def thing(kind: str, colour: str, left: float = 0.0) -> SceneObject:
    return SceneObject(kind, colour, (left, 0, left + 9, 9), 1.0, 81, (left / 10, 0, 1), (1, 1, 1))


def test_words_that_goals_about_annotated_objects_avoid() -> None:
    avoided = avoided_among([thing("barrel", "blue"), thing("door", "")])
    assert {"cylinder", "can", "cyan", "wall", "box", "black"} <= avoided
    assert "barrel" not in avoided
    # A barrel that is painted is of no doubtful colour.
    assert "cyan" not in avoided_among([thing("barrel", "red")])


@pytest.mark.parametrize(("world", "said"), [("miniworld", False), ("table", True)])
def test_goals_about_another_simulator_avoid_doubtful_words(world: str, said: bool) -> None:
    objects = (thing("barrel", "blue"), thing("chair", "", 20), thing("cone", "orange", 40))
    k = Intrinsics(64, 64, 32, 32, 64, 64)
    sample = SceneSample(
        np.zeros((64, 64, 3), np.uint8), np.zeros((0, 0), np.float32), k, objects, 1, world=world
    )
    rng = np.random.default_rng(0)
    texts = [goal.text for _ in range(300) for goal in _goals(sample, rng, 2, "absent")]
    assert len(texts) > 100
    assert any("cylinder" in text for text in texts) is said
