"""`groma models` and `groma doctor` on complete, unconverted, unfinished, damaged and too large models."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.cli import main
from groma_ros.commands import doctor
from groma_ros.runtime import machine_checks, suitability
from groma_ros.runtime.machine_checks import FAILURE, OK, WARNING, Finding, find_all
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import PACKAGES
from groma_ros.runtime.tensorrt.gpu import Gpu

Groma = Callable[..., tuple[int, Any]]


@pytest.fixture
def groma(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Groma:
    """Run a command with --json; its exit status and document."""
    monkeypatch.setenv("GROMA_MODELS", str(tmp_path / "models"))

    def run(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["groma", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def test_every_kind_of_model_is_listed(groma: Groma, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(shipped_model(), models / "mine")
    shutil.copytree(shipped_model(), models / "cut")
    (models / "cut" / "perceive.onnx").write_bytes(b"short")
    for name in ("groma-7b", ".groma-det.partial"):
        (models / "checkpoints" / name).mkdir(parents=True)
        record = {
            "repository": f"FoundationVision/{name}",
            "commit": "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
        }
        (models / "checkpoints" / name / "fetched.json").write_text(json.dumps(record))
    (models / "checkpoints" / "groma-7b" / "config.json").write_text("{}")
    status, document = groma("models")
    rows = {row["name"]: row for row in document["models"]}
    assert status == 0 and document["folder"] == str(models)
    assert set(rows) == {"mine", "cut", "groma-tiny", "groma-7b", "groma-det"}
    assert rows["mine"]["ok"] and rows["mine"]["precisions"] == ["fp32"]
    assert rows["mine"]["runs"] == "runs on onnx in fp32" and rows["mine"]["origin"] == "made on this machine"
    assert not rows["cut"]["ok"] and "perceive.onnx is truncated" in rows["cut"]["runs"]
    assert rows["groma-tiny"]["origin"] == "ships with groma_ros"
    assert rows["groma-7b"]["runs"] == "a checkpoint; groma convert groma-7b makes it ready to run"
    assert rows["groma-7b"]["origin"] == "FoundationVision/groma-7b at a1b2c3d4e5f6"
    assert rows["groma-det"]["runs"].startswith("an unfinished download; groma fetch ")


def test_the_doctor_finds_nothing_wrong_with_the_model_that_ships(groma: Groma) -> None:
    status, document = groma("doctor", "--seconds", "0")
    assert status == 0 and document["ok"] is True and document["model"] == "groma-tiny"
    checks = {item["name"]: item for item in document["checks"]}
    assert list(checks) == ["python", "gpu", "onnxruntime", "tensorrt", "llama.cpp", "disk", "model"]
    assert all(item["state"] in (OK, WARNING) for item in document["checks"])
    assert checks["model"]["found"].startswith("groma-tiny runs on onnx in fp32, needs about ")


def test_a_model_that_cannot_run_is_a_failure(groma: Groma, monkeypatch: pytest.MonkeyPatch) -> None:
    status, document = groma("doctor", "--seconds", "0", "--model", "groma-7b")
    (check,) = [item for item in document["checks"] if item["state"] == FAILURE]
    assert status == 1 and document["ok"] is False
    assert check["name"] == "model" and "groma fetch groma-7b downloads it" in check["mend"]
    monkeypatch.setattr(suitability, "available_mb", lambda: 80)
    status, document = groma("doctor", "--seconds", "0")
    (check,) = [item for item in document["checks"] if item["state"] == FAILURE]
    assert status == 1 and check["mend"].startswith("It needs about ") and "16 MB are free" in check["mend"]


def test_doctor_names_broken_parts_and_their_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Gpu("NVIDIA Thor", (11, 0), (13, 0), 120_000)
    assert "NVIDIA Thor, compute capability 11.0, CUDA 13.0" in machine_checks.check_gpu(gpu).found
    found = machine_checks.check_onnxruntime(gpu)
    assert found.state == WARNING and found.mend.endswith("python -m pip install onnxruntime-gpu")
    monkeypatch.setattr(machine_checks, "_ask", lambda code: False)
    found = machine_checks.check_llama(gpu, None)
    assert found.state == WARNING and "--force-reinstall" in found.mend and "-DGGML_CUDA=on" in found.mend
    monkeypatch.setattr(machine_checks, "_ask", lambda code: None)
    assert machine_checks.check_onnxruntime(None).found == "installed, but cannot be imported"
    monkeypatch.setattr(machine_checks, "PACKAGES", dict.fromkeys(PACKAGES, "of_another_world"))
    for check in (machine_checks.check_onnxruntime, machine_checks.check_tensorrt):
        assert check(gpu).found.startswith("not installed") and check(gpu).mend
    assert machine_checks.check_llama(gpu, None).state == OK

    def broken() -> Finding:
        raise RuntimeError("a driver\nthat is gone")

    assert find_all([("driver", broken)]) == [
        Finding("driver", WARNING, "could not be checked: RuntimeError: a driver that is gone")
    ]


def test_doctor_survives_missing_or_crashing_ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shim = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(shim))
    assert doctor.ros_findings(0.1)[0].found == "the checks could not be started: No such file or directory"
    shim.write_text("#!/bin/sh\necho boom >&2; kill -SEGV $$\n")
    shim.chmod(0o755)
    (found,) = doctor.ros_findings(0.1)
    assert found.state == WARNING and found.found == "the checks ended early: boom" and found.mend
