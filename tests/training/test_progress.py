"""Output of `groma train`: bars with the remaining time on a terminal, plain lines in a log."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.vision_stage import log
from tests.test_progress import Terminal

FIRST, SECOND = (TrainingProcess(rank, 2, torch.device("cpu")) for rank in range(2))


def test_a_terminal_gets_a_bar_with_the_time_left_and_held_out_measurements(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = Terminal()
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(sys, name, terminal)
    path = tmp_path / "detection.jsonl"
    for step in FIRST.steps(4, 8, "detection"):
        log(path, {"step": step, "loss": 0.5})
    log(path, {"step": 8, "held_out": {"recall": 0.75}})
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"detection step .* 8/8 0:00:00", plain)
    assert "loss" not in plain and '{"step": 8, "held_out": {"recall": 0.75}}' in plain
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [4, 5, 6, 7, 8]


def test_a_log_gets_plain_lines_of_the_first_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for worker in (FIRST, SECOND):
        assert list(worker.steps(0, 2, "alignment")) == [0, 1]
    log(tmp_path / "alignment.jsonl", {"step": 2, "loss": 0.123456})
    out, err = capsys.readouterr()
    assert err.splitlines() == ["alignment step 1 of 2", "alignment step 2 of 2"]
    assert out == '{"step": 2, "loss": 0.1235}\n' == (tmp_path / "alignment.jsonl").read_text()
