"""One renderer for all rendering tests: creating it takes longer than drawing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from groma_ros.simulation.scenes import SceneRenderer


@pytest.fixture(scope="session")
def renderer() -> Iterator[SceneRenderer]:
    with SceneRenderer() as one:
        yield one
