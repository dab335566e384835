"""Models, recordings and pages for the tests of groma live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.live.pipeline_engine import PipelineEngine
from groma_ros.live.sources import open_source
from groma_ros.types import Goal
from tests.live.page import Serving

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "engines" / "groma-tiny"
BAG = ROOT / "demo" / "tabletop.mcap"
PICTURE = ROOT / "demo" / "frame.png"

Serve = Callable[..., Serving]


@pytest.fixture(scope="session")
def tiny() -> Grounder:
    """The model that ships."""
    return Grounder.load(TINY, backend="onnx", threads=1)


@pytest.fixture
def serve(tiny: Grounder, tmp_path: Path) -> Iterator[Serve]:
    """Serves a source with goals: `serve(source, *goals, grounder=None, token="")`."""
    with ExitStack() as stack:

        def start(source: Path, *goals: str, grounder: Grounder | None = None, token: str = "") -> Serving:
            engine = PipelineEngine(grounder or tiny, open_source(str(source)), "a model")
            engine.set_goals([Goal(text) for text in goals])
            return stack.enter_context(Serving(engine, tmp_path / "out", token))

        yield start
