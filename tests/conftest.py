"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import write_small_bundle

pytest_plugins = ["tests.rendering"]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that holds a small network with random weights. Do not write to it."""
    return write_small_bundle(tmp_path_factory.mktemp("model") / "small")
