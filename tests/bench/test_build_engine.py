"""`groma build-engine`: its report without a GPU; building, reuse, comparison and timing with one."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from groma_ros.bench.engine_check import same_answer
from groma_ros.cli import main
from groma_ros.types import Detection, Goal, Grounding
from tests.runtime.machine import Machine

Groma = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def groma(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], graph_model: Path) -> Groma:
    """`groma build-engine` of the small model."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(
            sys, "argv", ["groma", "build-engine", "--model", str(graph_model), *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def test_without_a_gpu(groma: Groma) -> None:
    done = groma()
    assert (done.status, done.stdout) == (1, "")
    assert (
        done.stderr
        == "groma: TensorRT needs an NVIDIA GPU and its driver, and none was found on this machine; use the "
        "backend onnx.\n"
    )


def test_check_without_a_gpu_reports_it_and_exits_with_0(groma: Groma) -> None:
    done = groma("--check")
    assert done.status == 0
    assert (
        done.stdout
        == "Nothing was checked: there is no NVIDIA GPU on this machine, so no engine was built or "
        "compared.\n"
    )
    assert json.loads(groma("--check", "--json").stdout)["checked"] is False


def test_engines_are_built_once(groma: Groma, gpu_machine: Machine, version: str, tmp_path: Path) -> None:
    fake = gpu_machine(version)
    first, second, third = groma("--json"), groma("--json"), groma("--force-rebuild", "--json")
    rows = [json.loads(done.stdout)["engines"] for done in (first, second, third)]
    assert [[row["reused"] for row in found] for found in rows] == [
        [False, False],
        [True, True],
        [False, False],
    ]
    assert len(fake.built) == 4
    for row in rows[0]:
        path = Path(row["engine"])
        assert (
            path.parent == tmp_path / "cache" / "groma_ros" / "engines"
            and path.stat().st_size == row["bytes"] > 0
        )
        assert path.name.startswith(
            f"{row['graph'].split('.')[0]}.trt{fake.module.__version__}.Fake-GPU.sm87.fp32."
        )
    if version != "8.6":  # which reports no progress
        assert (
            "perceive.onnx: Building 1 of 3\n" in first.stderr
            and "encode_regions.onnx: Building 3 of 3\n" in first.stderr
        )
    assert second.stderr == ""


def test_printed_command_reproduces_the_build(
    groma: Groma, gpu_machine: Machine, graph_model: Path, tmp_path: Path
) -> None:
    gpu_machine("11.4")
    lines = groma().stdout.splitlines()
    assert lines[0] == "TensorRT 11.4.0.106 on Fake GPU" and lines[1].startswith(
        "perceive.onnx         fp32       "
    )
    perceive, regions = (shlex.split(line.removeprefix("  by hand: ")) for line in (lines[2], lines[4]))
    engine = next(path for path in (tmp_path / "cache" / "groma_ros" / "engines").glob("perceive*.engine"))
    assert perceive == [
        "trtexec",
        f"--onnx={graph_model / 'perceive.onnx'}",
        f"--saveEngine={engine}",
        "--minShapes=pixels:1x3x112x112",
        "--optShapes=pixels:1x3x112x112",
        "--maxShapes=pixels:4x3x112x112",
        "--noTF32",
        "--memPoolSize=workspace:256",
        "--stronglyTyped",
        f"--timingCacheFile={engine.parent / 'timing.trt11.4.0.106.Fake-GPU.sm87.cache'}",
    ]
    assert {"--minShapes=boxes:1x4", "--optShapes=boxes:12x4", "--maxShapes=boxes:12x4"} <= set(regions)
    gpu_machine("8.6")
    text = groma().stdout
    assert (
        "--onnx=GRAPHS/perceive.onnx" in text
        and "groma build-engine --graphs GRAPHS --lower" in text
        and "stronglyTyped" not in text
    )


def test_a_cache_that_cannot_be_written(
    groma: Groma, gpu_machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu_machine("11.4")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = groma()
    assert (
        done.status == 1
        and "The engine of perceive.onnx was built but could not be written to" in done.stderr
    )


@pytest.mark.parametrize("lower", [False, True])
def test_graphs_for_another_machine(groma: Groma, tmp_path: Path, lower: bool) -> None:
    """Needs no GPU and no TensorRT."""
    done = groma("--graphs", tmp_path / "graphs", *(["--lower"] if lower else []))
    assert done.status == 0, done.stderr
    for role in ("perceive", "encode_regions"):
        model = onnx.load(tmp_path / "graphs" / f"{role}.onnx")
        assert model.opset_import[0].version == (17 if lower else 18)
        assert (
            f"trtexec --onnx={tmp_path}/graphs/{role}.onnx --saveEngine={tmp_path}/graphs/{role}.engine"
            in done.stdout
        )
    assert ("--stronglyTyped" in done.stdout) != lower


def test_a_check(groma: Groma, gpu_machine: Machine, version: str, tmp_path: Path) -> None:
    """The engines of the test compute in ONNX Runtime what PyTorch computes, within the last bits."""
    gpu_machine(version)
    log = tmp_path / "measurements" / "log.md"
    done = groma("--check", "--pictures", "3", "--log", log, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    found = document["check"]
    assert (done.status, document["ok"], found["same_answers"], found["same_scenes"]) == (0, True, 12, 3), (
        document
    )
    assert (
        found["oracle"] == "torch fp32 on the CPU"
        and found["region_tokens"] < 1e-3
        and found["box_pixels"] < 0.1
    )
    assert found["engine_ms"] > 0 and found["oracle_ms"] > 0
    text = log.read_text()
    assert (
        text.startswith("# small on Fake GPU, TensorRT ")
        and "Compute capability 8.7, 1024 MB of memory" in text
    )
    assert "| same answers | 12 |" in text and "The engines answer as the network does." in text


def test_a_check_that_fails(groma: Groma, gpu_machine: Machine) -> None:
    gpu_machine("11.4").spoils = 0.05
    done = groma("--check", "--pictures", "2")
    assert done.status == 1
    assert done.stdout.endswith("The engines do not answer as PyTorch does.\n")


def test_what_cannot_be_asked(groma: Groma) -> None:
    assert "--pictures is 0; it must be at least 1." in groma("--pictures", "0").stderr


def grounding(*detections: tuple[tuple[float, float, float, float], float]) -> Grounding:
    found = tuple(Detection(box, score, region) for region, (box, score) in enumerate(detections))
    return Grounding(Goal("it"), found, 0.9, 0.5)


def test_which_answers_are_the_same() -> None:
    one, two = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 50.0)
    near = (0.5, 0.0, 100.0, 100.0)
    wanted = grounding((one, 0.8), (two, 0.6))
    assert same_answer(wanted, wanted, 0.02) and same_answer(grounding(), grounding(), 0.02)
    assert same_answer(grounding((two, 0.61), (near, 0.79)), wanted, 0.02)
    for other in (
        grounding((one, 0.8)),
        grounding(),
        grounding((one, 0.8), (one, 0.6)),
        grounding((one, 0.8), (two, 0.63)),
        grounding((one, 0.8), ((205.0, 0.0, 300.0, 50.0), 0.6)),
    ):
        assert not same_answer(other, wanted, 0.02)
    assert same_answer(grounding((one, 0.8), (two, 0.63)), wanted, float(np.float32(0.05)))
