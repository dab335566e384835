"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import write_small_bundle

pytest_plugins = ["tests.rendering", "tests.runtime.machine"]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that holds a small network with random weights. Do not write to it."""
    return write_small_bundle(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="session")
def graph_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small network that also holds its ONNX graphs. Do not write to it."""
    from groma_ros.export.convert import convert

    folder = tmp_path_factory.mktemp("graphs")
    return convert(write_small_bundle(folder / "plain", calm=True), folder / "small").directory
