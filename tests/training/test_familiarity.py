"""Statistics of training pictures, world by world, and the command that puts them into a bundle."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from groma_ros.grounding import familiarity as statistics
from groma_ros.grounding.familiarity import Familiarity
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.torch import load_model
from groma_ros.simulation.scenes import SceneObject
from groma_ros.training import familiarity
from groma_ros.training.config import TrainConfig
from groma_ros.training.data import Data
from groma_ros.training.familiarity import add, fit, main
from groma_ros.training.pool import Shard
from groma_ros.types import Intrinsics
from tests.training.test_training import CONFIG

SIDE = 56
CAMERA = Intrinsics(SIDE, SIDE, SIDE / 2, SIDE / 2, SIDE, SIDE)
THINGS = tuple(
    SceneObject(kind, colour, (left, 5, left + 9, 14), 1.0, 81, (left / 50, 0, 1), (0.1, 0.1, 0.1))
    for kind, colour, left in (("mug", "red", 2), ("box", "blue", 20), ("cone", "green", 40))
)


FEW = 40


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pictures make a world, and fewer words are drawn, than in a real run."""
    for module in (familiarity, statistics):
        monkeypatch.setattr(module, "FEWEST", FEW)
    monkeypatch.setattr(familiarity, "SAYINGS", 1)


def shard(world: str, grey: float, count: int, seed: int = 0) -> Shard:
    """Pictures of noise about a grey value."""
    noise = np.random.default_rng(seed).normal(grey, 12, (count, SIDE, SIDE, 3))
    images = np.clip(noise, 0, 255).astype(np.uint8)
    return Shard(f"{world}-{seed}", images, [THINGS] * count, [CAMERA] * count, seed, world)


def test_every_world_has_its_own_statistics(small_model: Path) -> None:
    model = load_model(Bundle.load(small_model))
    data = Data([shard("table", 40, 45), shard("wide", 200, 30), shard("wide", 200, 18, 1)])
    found = fit(model, data)
    assert found is not None
    assert [world.name for world in found.worlds] == ["table", "wide"]
    table, wide = found.worlds
    # Each is fitted to its own pictures, so those of the other are far from it.
    assert wide.distance(table.mean) > 4 * wide.limit and table.distance(wide.mean) > 4 * table.limit
    assert {"red", "mug", "blue", "box", "green", "cone"} <= found.words
    # Of a config's usual worlds only those are fitted; words are taken from all.
    chosen = fit(model, data, ("wide", "absent"))
    assert chosen is not None and [world.name for world in chosen.worlds] == ["wide"]
    assert chosen.words == found.words and np.array_equal(chosen.worlds[0].mean, wide.mean)
    # Evenly spread over both shards of a world: a fit to fewer is another fit.
    fewer = fit(model, Data(data.pictures), pictures=40)
    assert fewer is not None and not np.array_equal(fewer.worlds[1].mean, wide.mean)


def test_a_world_of_few_pictures_belongs_to_the_largest(small_model: Path) -> None:
    model = load_model(Bundle.load(small_model))
    found = fit(model, Data([shard("shelf", 40, FEW - 1), shard("table", 200, FEW + 5)]))
    assert found is not None and [world.name for world in found.worlds] == ["table"]
    alone = fit(model, Data([shard("table", 200, FEW + 5)]))
    assert alone is not None and not np.array_equal(alone.worlds[0].mean, found.worlds[0].mean)
    assert fit(model, Data([shard("shelf", 40, 9), shard("table", 200, 9)])) is None


def test_the_command_keeps_the_words_that_a_bundle_knows(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(small_model, tmp_path / "bundle"))
    width = load_model(Bundle.load(bundle)).config.language.hidden_size
    tokens = np.random.default_rng(0).normal(size=(FEW, width)).astype(np.float32)
    add(bundle, Familiarity.fit({"older": tokens}, frozenset({"anvil"})))
    data = Data([shard("table", 40, 45), shard("wide", 200, 45)])
    monkeypatch.setattr(TrainConfig, "load", lambda _: dataclasses.replace(CONFIG))
    monkeypatch.setattr(familiarity, "scenes_data", lambda *_: data)
    main([str(bundle), "--config", "c.yaml", "--out", str(tmp_path)])
    found = Familiarity.load(Bundle.load(bundle))
    assert found is not None and [world.name for world in found.worlds] == ["table", "wide"]
    assert {"anvil", "mug"} <= found.words
    assert f"{len(found.words)} words; limits table {found.worlds[0].limit:.2f}" in capsys.readouterr().out
    monkeypatch.setattr(familiarity, "scenes_data", lambda *_: Data([shard("table", 40, 5)]))
    with pytest.raises(SystemExit, match=f"fewer than {FEW} pictures"):
        main([str(bundle), "--config", "c.yaml", "--out", str(tmp_path)])
