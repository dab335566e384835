"""The mean of bundles has the mean of their weights, and nothing that belongs to other weights."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from groma_ros.grounding.familiarity import Familiarity
from groma_ros.runtime.bundle import TOKENIZER, WEIGHTS, Bundle
from groma_ros.training.mean import main

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
NAME = "llm.model.norm.weight"


def _mean(monkeypatch: pytest.MonkeyPatch, *names: Path) -> Bundle:
    *sources, out = names
    monkeypatch.setattr(sys, "argv", ["mean", *map(str, sources), "--out", str(out)])
    main()
    return Bundle.load(out)


def test_weights_are_averaged_and_the_rest_is_that_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Bundle.load(TINY)
    weights = load_file(tiny.file(WEIGHTS))
    other = dataclasses.replace(tiny, directory=tmp_path / "other", graphs={}, familiarity={})
    tokenizer = tiny.file(TOKENIZER).read_bytes()
    other.write({**weights, NAME: weights[NAME] + np.float16(2)}, tokenizer)
    mean = _mean(monkeypatch, tmp_path / "other", TINY, tmp_path / "mean")
    found = load_file(mean.file(WEIGHTS))
    assert found.keys() == weights.keys()
    np.testing.assert_allclose(found.pop(NAME), weights.pop(NAME) + 1, atol=2e-3)
    assert [name for name, value in found.items() if not np.array_equal(value, weights[name])] == []
    assert mean.seeds["mean_of"] == [Bundle.load(tmp_path / "other").weights, tiny.weights]
    assert mean.test == mean.calibration == mean.graphs == {}
    known, expected = Familiarity.load(mean), Familiarity.load(tiny)
    assert known is not None and expected is not None and known.words == expected.words


def test_bundles_of_other_networks_or_words_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Bundle.load(TINY)
    weights = load_file(tiny.file(WEIGHTS))
    plain = dataclasses.replace(tiny, directory=tmp_path / "words", graphs={}, familiarity={})
    plain.write(weights, tiny.file(TOKENIZER).read_bytes() + b"\n\0")
    with pytest.raises(SystemExit, match="another vocabulary"):
        _mean(monkeypatch, tmp_path / "words", TINY, tmp_path / "out")
    network = {**tiny.network, "nms_thres": 0.5}
    dataclasses.replace(plain, directory=tmp_path / "network", network=network).write(weights, b"")
    with pytest.raises(SystemExit, match="another network"):
        _mean(monkeypatch, tmp_path / "network", TINY, tmp_path / "out")
    assert not (tmp_path / "out").exists()
