"""Rendered scenes, the model that ships, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.simulation.dataset import Settings, write_dataset

Command = Callable[..., dict[str, Any]]


@pytest.fixture(scope="package")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight scenes in the form of docs/scenes.md. Do not write to it."""
    out = tmp_path_factory.mktemp("rendered") / "data"
    write_dataset(out, 8, Settings(41, 320, 240), progress=False)
    return out


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `groma` with these arguments and --json and return its document. Fails with its output if the
    command fails."""
    from groma_ros.cli import main

    def run(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["groma", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert ended.value.code == 0, captured.err
        document: dict[str, Any] = json.loads(captured.out)
        return document

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `groma` with these arguments, which it must refuse, and return the sentence on standard error."""
    from groma_ros.cli import main

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["groma", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert ended.value.code == 1, captured.out
        return captured.err

    return run
