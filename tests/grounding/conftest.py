"""A grounder over the small network, and a scene."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Scene
from tests.small import blocks


@pytest.fixture(scope="package")
def grounder(small_model: Path) -> Iterator[Grounder]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Grounder.load(small_model, min_presence=0.0)
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def scene(grounder: Grounder) -> Scene:
    return grounder.perceive(Frame(blocks(1), stamp=5, frame_id="camera"))
