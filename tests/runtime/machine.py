"""A machine with a GPU, as far as it can be emulated: a driver in C, and TensorRT's API on top of ONNX
Runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groma_ros.runtime.tensorrt import gpu
from tests.runtime.bindings import VERSIONS
from tests.runtime.driver import Driver
from tests.runtime.fake_tensorrt import FakeTensorRT

Machine = Callable[[str], FakeTensorRT]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Every version of TensorRT the project is held to."""
    return str(request.param)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """A CUDA driver with a memory and a stream of its own."""
    return Driver(tmp_path)


@pytest.fixture
def gpu_machine(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Make this process one on a machine with a GPU and a version of TensorRT; engines are kept in `tmp_path
    / "cache"`."""
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
