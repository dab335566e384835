"""The mean of bundles has the mean of their weights, and nothing that belongs to other weights."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from groma_ros.grounding.familiarity import Familiarity
from groma_ros.runtime.bundle import TOKENIZER, WEIGHTS, Bundle
from groma_ros.training.mean import main

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
NAME = "llm.model.norm.weight"


def _write(directory: Path, weights: dict[str, Any], tokenizer: bytes = b"", **changes: Any) -> None:
    """Write groma-tiny with other weights, another tokenizer or other fields."""
    bundle = dataclasses.replace(Bundle.load(TINY), directory=directory, graphs={}, familiarity={}, **changes)
    bundle.write(weights, tokenizer or (TINY / TOKENIZER).read_bytes())


def _mean(monkeypatch: pytest.MonkeyPatch, *names: Path) -> Bundle:
    *sources, out = names
    monkeypatch.setattr(sys, "argv", ["mean", *map(str, sources), "--out", str(out)])
    main()
    return Bundle.load(out)


def test_weights_are_averaged_and_the_rest_is_that_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, weights = Bundle.load(TINY), load_file(TINY / WEIGHTS)
    _write(tmp_path / "other", {**weights, NAME: weights[NAME] + np.float16(2)})
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
    weights = load_file(TINY / WEIGHTS)
    _write(tmp_path / "words", weights, tokenizer=b"other")
    with pytest.raises(SystemExit, match="another vocabulary"):
        _mean(monkeypatch, tmp_path / "words", TINY, tmp_path / "out")
    _write(tmp_path / "network", weights, network={**Bundle.load(TINY).network, "nms_thres": 0.5})
    with pytest.raises(SystemExit, match="another network"):
        _mean(monkeypatch, tmp_path / "network", TINY, tmp_path / "out")
    assert not (tmp_path / "out").exists()
