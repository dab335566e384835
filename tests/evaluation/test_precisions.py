"""One row per precision of a bundle, with float32 in PyTorch as the reference."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from groma_ros.cli import main
from groma_ros.evaluation.precisions import table
from groma_ros.runtime.bundle import Bundle

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


def test_every_precision_has_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["groma", "eval", "precisions", "--model", str(TINY), "--seed", "4321", "--count", "4", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    bundle = Bundle.load(TINY)
    names = [("torch", "fp32"), *(("onnx", name) for name in bundle.precisions)]
    assert [(row["backend"], row["name"]) for row in report["rows"]] == names
    weights = bundle.files["model.safetensors"]["bytes"]
    assert report["rows"][0]["bytes"] == weights and report["rows"][0]["times"] == 1.0
    for row in report["rows"][1:]:
        assert 0.3 * weights < row["bytes"] < 1.2 * weights and row["times"] > 0
        assert row["accuracy"]["all"] == pytest.approx(report["rows"][0]["accuracy"]["all"], abs=0.15)
    lines = table(report["rows"]).splitlines()
    assert len(lines) == 2 + len(names) and lines[2].startswith("| torch fp32 | ") and "| +0.00 |" in lines[2]
