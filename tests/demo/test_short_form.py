"""Both demonstrations from end to end, a few seeds each: simulator, node and bridge in processes of their
own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulators import ROOT, need_simulators

KEYS = {"episodes", "present", "success", "absent", "motion_on_absent", "causes", "rows"}
LOST = {"arm lost", "base lost", "node lost"}


def run(module: str, out: Path, finder: str, seeds: int, first: int) -> dict[str, Any]:
    need_simulators()
    name = module.split(".")[1]
    options = [f"--seeds={seeds}", f"--first-seed={first}", f"--finder={finder}", f"--out={out}", "--film=1"]
    command = [sys.executable, "-m", module, *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    stem = name if finder == "node" else f"{name}-{finder}"
    assert (out / f"{stem}.png").stat().st_size > 5000 and (out / f"{stem}.mp4").stat().st_size > 5000
    document: dict[str, Any] = json.loads((out / f"{stem}.json").read_text())
    assert document.keys() >= KEYS
    assert document["episodes"] == seeds == len(document["rows"])
    assert document["present"] + document["absent"] == seeds
    assert [row["seed"] for row in document["rows"]] == list(range(first, first + seeds))
    assert not LOST & set(document["causes"])
    return document


def test_grasping_with_the_node(tmp_path: Path) -> None:
    document = run("demo.grasp.run", tmp_path, "node", 5, 9000)
    assert document["absent"] == 1 and document["wrong_lift"] <= 5
    # Whoever was lifted, each row says so in one of these words.
    outcomes = {"success", "nothing lifted", "wrong lift", "motion"}
    assert {row["outcome"] for row in document["rows"]} <= outcomes


def test_grasping_with_true_boxes_lifts_what_was_meant(tmp_path: Path) -> None:
    document = run("demo.grasp.run", tmp_path, "true", 4, 9000)
    assert document["absent"] == 1 and document["motion_on_absent"] == 0
    assert document["wrong_lift"] == 0 and document["success"] >= 2


def test_navigating_with_the_node(tmp_path: Path) -> None:
    document = run("demo.navigate.run", tmp_path, "node", 5, 9000)
    assert document["absent"] == 1
    assert {row["outcome"] for row in document["rows"]} <= {"success", "not arrived", "false arrival"}


def test_navigating_with_true_boxes_arrives(tmp_path: Path) -> None:
    document = run("demo.navigate.run", tmp_path, "true", 2, 9000)
    assert document["success"] >= 1 and document["false_arrival"] == 0


@pytest.mark.parametrize("module", ["demo.grasp.run", "demo.navigate.run"])
def test_options_are_explained(module: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0 and "--first-seed" in result.stdout
