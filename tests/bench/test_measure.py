"""`groma bench` as a command, on the shipped model."""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from groma_ros.bench import workload
from groma_ros.bench.stages import STAGES
from groma_ros.bench.workload import pictures, to_frame
from groma_ros.commands.bench import add_arguments, plan
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.model_paths import shipped_model

ROOT = Path(__file__).parents[2]
CODE = "from groma_ros.cli import main; main()"


def options(*words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def groma(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, "bench", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )


def test_one_json_document() -> None:
    """Of the shipped model, with torch beside it."""
    done = groma("--goals", "2", "--frames", "2", "--threads", "1", "--clock", "cpu", "--claims", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    machine = document["machine"]
    assert (machine["threads"], machine["clock"], machine["size"]) == (1, "cpu", "tiny")
    assert machine["ceilings"]["operations"] > 1e8 and machine["ceilings"]["bytes"] > 1e8
    rows = document["rows"]
    made = Bundle.load(shipped_model()).precisions
    names = [f"onnx {made[0]}", *(["onnx fp32"] if "fp32" in made[1:] else []), "torch fp32"]
    assert [(f"{row['backend']} {row['precision']}", row["goals"]) for row in rows] == [
        (n, goals) for n in names for goals in (1, 2, 10)
    ]
    for row in rows:
        assert list(row["stages"]) == list(STAGES) and row["frames"] == 2
        assert all(0 <= stage["median_ms"] <= stage["p95_ms"] for stage in row["stages"].values())
        shares = [stage["share"] for name, stage in row["stages"].items() if name != "image decode"]
        assert sum(shares) == pytest.approx(1, abs=0.002) and min(shares) >= 0
        assert row["total"]["floor_ms"] > 0 and row["total"]["median_ms"] <= row["total"]["p95_ms"]
        assert row["counts"]["rows"] == row["goals"] and row["counts"]["regions"] >= 1
    # Each runs in a separate process: PyTorch needs more memory than ONNX Runtime, which its row must not
    # include.
    assert max(row["peak_mb"] for row in rows if row["backend"] == "onnx") < min(
        row["peak_mb"] for row in rows[-3:]
    )
    listed = {(item["fast"], item["slow"], item["goals"]): item["times"] for item in document["ratios"]}
    assert set(listed) == {
        (*pair, goals) for pair in itertools.combinations(names, 2) for goals in (1, 2, 10)
    }
    claims = document["claims"]
    assert len(claims) == 6 and all(item["reached"] == _holds(item) for item in claims)
    assert claims[4]["measured"] == listed[names[0], "torch fp32", 1]
    assert claims[5]["measured"] == (listed["onnx fp32", "torch fp32", 1] if "onnx fp32" in names else None)


def _holds(claim: dict[str, Any]) -> bool:
    measured, wanted = float(claim["measured"]), float(claim["wanted"])
    return measured >= wanted if claim["at_least"] else measured <= wanted


def test_lines_to_read_and_no_torch() -> None:
    """The default needs nothing that `make setup` does not install."""
    blocked = "import sys; sys.modules.update(torch=None, mujoco=None, transformers=None)\n" + CODE
    words = ["bench", "--goals", "1", "--frames", "1", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", blocked, *words], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "the demo's picture, shifted; size: tiny; clock: wall" in lines
    head = next(line for line in lines if line.endswith(" MB") and ", 1 goal, 1 frames, peak " in line)
    assert head.startswith("onnx ")
    names = [line[2:18].strip() for line in lines[lines.index(head) + 2 :]]
    assert names == [*STAGES, "total"]


def test_a_backend_that_cannot_load(small_model: Path) -> None:
    done = groma("--model", small_model, "--backend", "onnx", "--frames", "1", "--threads", "1", "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert (
        "The model small in" in done.stderr and "has no ONNX graphs; groma convert makes them." in done.stderr
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--goals", "1,x"], "--goals is '1,x'; it must be numbers from 1 to 100"),
        (["--goals", "0"], "--goals is '0'"),
        (["--frames", "0"], "--frames is 0; it must be at least 1"),
        (["--threads", "-1"], "--threads is -1"),
        (
            ["--clock", "cpu", "--threads", "2"],
            "--clock cpu adds up the work of all threads, which is no time; use it with --threads 1",
        ),
        (
            ["--size", "base", "--model", "groma-tiny"],
            "--size base has random weights; name a model or a size, not both.",
        ),
        (
            ["--backend", "torch,onnx", "--precision", "fp32,q8_0"],
            "--precision q8_0: none of the backends torch,onnx has it",
        ),
    ],
)
def test_options_that_cannot_be_met(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan(options(*words))


def test_variants() -> None:
    made = plan(options("--backend", "onnx,torch", "--precision", "fp32,auto", "--goals", "10,1,10"))
    assert [(item.options.backend, item.options.precision) for item in made.variants] == [
        ("onnx", "fp32"),
        ("onnx", "auto"),
        ("torch", "fp32"),
        ("torch", "auto"),
    ]
    assert made.goals == (1, 10) and made.rounds == 20
    paired = plan(options("--size", "7b", "--backend", "torch,llama_cpp", "--precision", "bf16,q4_k_m"))
    assert [
        (item.model, item.size, item.options.backend, item.options.precision) for item in paired.variants
    ] == [
        (None, "7b", "torch", "bf16"),
        (None, "7b", "llama_cpp", "q4_k_m"),
    ]
    assert (paired.rounds, paired.warm_up) == (1, 0)
    untrained = plan(options("--size", "base", "--claims"))
    assert [(item.options.backend, item.options.precision) for item in untrained.variants] == [
        ("auto", "auto")
    ] and untrained.rounds == 3
    claims = plan(options("--claims", "--goals", "4"))
    chosen = [(item.options.backend, item.options.precision) for item in claims.variants]
    assert chosen[0] == ("auto", "auto") and chosen[-1] == ("torch", "fp32")
    assert claims.goals == (1, 4, 10)


def test_pictures_are_of_the_seed() -> None:
    jpegs, source = pictures(2, 4)
    assert source == "rendered scenes, seed 4" and len(set(jpegs)) == 2
    assert pictures(2, 4)[0] == jpegs and pictures(2, 5)[0] != jpegs
    assert to_frame(jpegs[0]).rgb.shape == (workload.HEIGHT, workload.WIDTH, 3)
    shifted = [to_frame(jpeg).rgb for jpeg in map(workload._jpeg, workload._demo(2))]
    assert statistics.mean(abs(shifted[0].astype(int) - shifted[1]).ravel().tolist()) > 1
