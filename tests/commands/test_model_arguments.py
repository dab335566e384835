"""--model is a name or a folder in every command, and one process at a time changes a model."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from groma_ros.cli import COMMANDS
from groma_ros.folder_lock import folder_lock

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
WANTED = {
    "bench": [],
    "build-engine": [],
    "calibrate": [],
    "eval precisions": ["--seed", "1"],
    "eval scenes": ["--seed", "1"],
    "ground": ["--image", "a.png"],
}
ALL = pytest.mark.parametrize("command", WANTED)


def parse(command: str, model: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    COMMANDS[command].load().add_arguments(parser)
    return parser.parse_args(["--model", model, *WANTED[command]])


@ALL
def test_a_name_is_found_where_models_are_kept(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(TINY)
    monkeypatch.setenv("GROMA_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse(command, "mine").model == tmp_path / "mine"
    assert parse(command, str(TINY)).model == TINY


@ALL
def test_a_model_that_is_not_there_is_a_sentence(command: str) -> None:
    with pytest.raises(ValueError, match=r"There is no model 'groma-tinny' .*did you mean groma-tiny\?"):
        parse(command, "groma-tinny")
    with pytest.raises(ValueError, match="The model folder ./nowhere does not exist|folder nowhere does"):
        parse(command, "./nowhere")


@pytest.mark.parametrize("taken", ["model", "out"])
def test_a_model_that_is_being_changed_is_not_calibrated(tmp_path: Path, taken: str) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(TINY, model)
    command = [sys.executable, "-m", "groma_ros.cli", "calibrate", "--model", str(model), "--seed", "1"]
    with folder_lock(tmp_path / taken):
        done = subprocess.run(
            [*command, "--count", "1", "--out", str(out)], capture_output=True, text=True, check=False
        )
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert done.returncode == 1
    assert done.stderr == (
        f"groma: {tmp_path / taken} is in use by {holder}; wait until it ends, or name another folder.\n"
    )


def test_graphs_are_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "groma_ros.cli", "build-engine", "--graphs", str(tmp_path)]
    with folder_lock(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{tmp_path} is in use by process {os.getpid()} on" in done.stderr
