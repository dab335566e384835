"""Bundles after a finished run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from groma_ros.grounding.familiarity import FILE, Familiarity
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import MANIFEST, TOKENIZER, WEIGHTS, Bundle
from groma_ros.runtime.torch import load_model
from groma_ros.training import run
from groma_ros.training.familiarity import add
from groma_ros.training.optimiser import save_checkpoint
from groma_ros.training.run import add_table, publish
from tests.training.test_training import CONFIG


def test_the_accuracy_table_goes_into_the_manifest_and_nothing_else_changes(
    small_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_model, tmp_path / "copy"))
    before = Bundle.load(folder)
    add_table(folder, {"scenes": 500, "recall": 0.97})
    after = Bundle.load(folder)
    assert after.test == {"scenes": 500, "recall": 0.97} and before.test == {}
    assert (after.network, after.prompt, after.image, after.seeds) == (
        before.network,
        before.prompt,
        before.image,
        before.seeds,
    )
    assert (folder / WEIGHTS).read_bytes() == (small_model / WEIGHTS).read_bytes()


def test_a_fine_tuned_bundle_knows_its_pictures_and_the_words_of_both_trainings(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = GromaConfig.from_dict(Bundle.load(small_model).network)
    config, width = dataclasses.replace(CONFIG, network=network), network.language.hidden_size
    first, second = (
        Familiarity.fit(
            {"table": np.random.default_rng(seed).normal(size=(200, width)).astype(np.float32)}, words
        )
        for seed, words in ((0, frozenset({"red", "mug"})), (1, frozenset({"red", "spoon"})))
    )
    start, out, bundle = (
        Path(shutil.copytree(small_model, tmp_path / "start")),
        tmp_path / "out",
        tmp_path / "b",
    )
    add(start, first)
    save_checkpoint(out / "language.pt", model=load_model(Bundle.load(start)).state_dict(), step=3)
    shutil.copyfile(start / TOKENIZER, out / TOKENIZER)
    bundle.mkdir()
    shutil.copyfile(start / FILE, bundle / FILE)  # of an earlier run
    monkeypatch.setattr(run, "scenes_data", lambda *_: None)
    for found, wanted in ((None, None), (second, frozenset({"red", "mug", "spoon"}))):
        monkeypatch.setattr(run, "fit", lambda *_, found=found: found)
        publish(config, out, "language", bundle, start=start)
        known = Familiarity.load(Bundle.load(bundle))
        assert (known.words if known else None) == wanted
        assert (FILE in json.loads((bundle / MANIFEST).read_text())["files"]) == (known is not None)
    assert known is not None and np.array_equal(known.table, second.table)
    torch.testing.assert_close(
        load_model(Bundle.load(bundle)).state_dict(),
        load_model(Bundle.load(start)).state_dict(),
        atol=1e-3,
        rtol=1e-3,
    )
