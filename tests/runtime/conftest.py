"""A bundle with graphs, and how a test changes a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groma_ros.runtime import gpu
from groma_ros.runtime.bundle import MANIFEST
from tests.runtime.bindings import VERSIONS
from tests.runtime.driver import Driver
from tests.runtime.fake_tensorrt import FakeTensorRT


@pytest.fixture
def graph_copy(graph_model: Path, tmp_path: Path) -> Path:
    """A bundle with graphs that a test may damage."""
    return Path(shutil.copytree(graph_model, tmp_path / "copy"))


@pytest.fixture
def put() -> Callable[[Path, str, bytes], None]:
    """Write a file of a bundle so that its checksum holds."""

    def write(folder: Path, name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return write


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Every version of TensorRT the project is held to."""
    return str(request.param)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """A CUDA driver with a memory and a stream of its own."""
    return Driver(tmp_path)


@pytest.fixture
def gpu_machine(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], FakeTensorRT]]:
    """Make this process one on a machine with a GPU and a version of TensorRT; engines are kept in `tmp_path / "cache"`."""
    made: list[FakeTensorRT] = []

    def make(version: str) -> FakeTensorRT:
        made.append(FakeTensorRT(version, driver))
        monkeypatch.setitem(sys.modules, "tensorrt", made[-1].module)
        monkeypatch.setattr(gpu, "DRIVER", str(driver.path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return made[-1]

    yield make
    for item in made:
        assert item.errors == []
