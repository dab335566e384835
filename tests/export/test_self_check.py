"""`groma verify MODEL`: a bundle against its own network and across precisions."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest

from groma_ros.cli import main
from groma_ros.export.measure import drawn_picture
from groma_ros.export.self_check import self_check
from groma_ros.runtime import first_load
from groma_ros.runtime.bundle import WEIGHTS, Bundle, described
from tests.runtime.endless import endless


def test_the_graphs_of_a_bundle_are_its_network(graph_model: Path) -> None:
    found = self_check(Bundle.load(graph_model), drawn_picture(), "the red box")
    assert [(item.precision, item.role) for item in found.stages] == [
        ("fp32", "perceive"),
        ("fp32", "encode_regions"),
        ("fp32", "language"),
    ]
    assert found.ok and all(0 <= item.difference < 1e-4 for item in found.stages) and not found.not_compared
    (answer,) = found.answers
    assert answer.backend == "onnx" and answer.as_first
    assert found.to_dict()["worst"] == max(item.difference for item in found.stages)


def test_a_graph_of_other_values_is_found(graph_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    graph = onnx.load(folder / "encode_regions.onnx")
    large = max(graph.graph.initializer, key=lambda item: len(item.raw_data))
    values = onnx.numpy_helper.to_array(large) * 1.5
    large.CopyFrom(
        onnx.numpy_helper.from_array(values.astype(onnx.numpy_helper.to_array(large).dtype), large.name)
    )
    onnx.save(graph, folder / "encode_regions.onnx")
    bundle = Bundle.load(graph_model)
    files = {**bundle.files, "encode_regions.onnx": described(folder / "encode_regions.onnx")}
    found = self_check(
        dataclasses.replace(bundle, directory=folder, files=files), drawn_picture(), "the red box"
    )
    assert not found.ok and [item.role for item in found.stages if not item.ok] == ["encode_regions"]


def test_without_weights_only_answers_are_compared(
    graph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    (folder / WEIGHTS).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][WEIGHTS]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(sys, "argv", ["groma", "verify", str(folder), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and report["ok"] and report["stages"] == {} and len(report["answers"]) == 1
    assert "holds no model.safetensors" in report["not_compared"]


def test_a_graph_that_does_not_end_is_given_up(
    graph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_load, "SECONDS", 8.0)
    bundle = endless(tmp_path / "endless", graph_model)
    monkeypatch.setattr(sys, "argv", ["groma", "verify", str(bundle.directory)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and "endless was not loaded: a trial" in capsys.readouterr().err
