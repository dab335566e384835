"""A bundle with graphs, and how a test changes a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small import put_file


@pytest.fixture
def graph_copy(graph_model: Path, tmp_path: Path) -> Path:
    """A bundle with graphs that a test may damage."""
    return Path(shutil.copytree(graph_model, tmp_path / "copy"))


@pytest.fixture
def put() -> Callable[[Path, str, bytes], None]:
    """Write a file of a bundle so that its checksum holds."""
    return put_file
