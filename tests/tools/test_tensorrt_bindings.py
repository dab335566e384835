"""The tool that fetches TensorRT's bindings: its output and its errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.bindings import ROOT, folder


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """The tool in a tree of its own, where nothing has been fetched."""
    (tmp_path / "tools").mkdir()
    for name in ("common.py", "tensorrt_bindings.py"):
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    return tmp_path / "tools" / "tensorrt_bindings.py"


def run(tool: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tool), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}, timeout=120
    )


def test_what_a_folder_holds(version: str) -> None:
    made = folder(version)
    api = json.loads((made / "api.json").read_text())
    assert api["version"].startswith(version) and len(api["classes"]) > 100
    assert api["classes"]["Builder"]["methods"]["create_network"].startswith(
        "create_network(self: tensorrt.tensorrt.Builder, flags: "
    )
    assert api["classes"]["IBuilderConfig"]["properties"].get("progress_monitor") == (
        None if version == "8.6" else True
    )
    assert api["enums"]["ILogger.Severity"] == {
        "INTERNAL_ERROR": 0,
        "ERROR": 1,
        "WARNING": 2,
        "INFO": 3,
        "VERBOSE": 4,
    }
    libraries = {path.name.split(".so")[0] for path in (made / "lib").glob("*.so.*")}
    assert {"libnvinfer", "libnvonnxparser", "libnvinfer_plugin"} <= libraries
    assert (made / "tensorrt" / "tensorrt.so").stat().st_size > 1_000_000


def test_versions_it_does_not_know(tool: Path) -> None:
    for arguments in ([], ["9.9"]):
        done = run(tool, *arguments)
        assert (done.returncode, done.stderr) == (2, "Name versions of TensorRT, of 8.6, 10.16, 11.4.\n")


def test_no_network(tool: Path) -> None:
    """A sentence, and nothing half made."""
    done = run(
        tool,
        "11.4",
        PIP_INDEX_URL="http://127.0.0.1:9",
        PIP_RETRIES="0",
        PIP_DEFAULT_TIMEOUT="1",
        PIP_NO_CACHE_DIR="1",
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith("The bindings of TensorRT could not be had: ") and done.stderr.count("\n") == 1
    )
    assert [path.name for path in (tool.parents[1] / ".cache" / "tensorrt").iterdir()] == ["11.4.lock"]
