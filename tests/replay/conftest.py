"""A short bag of a picture that changes, goals for it, and a model that answers at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin

from groma_ros.grounding.grounder import Grounder
from groma_ros.io.bags import RAW
from groma_ros.replay.plan import ModelSettings, ReplayPlan
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Goal
from tests.io.test_bags import image, write
from tests.small import GOALS, blocks

TENTH = 100_000_000


@pytest.fixture(scope="package")
def grounder(small_model: Path) -> Iterator[Grounder]:
    """The small network in this process, with one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ModelSettings(small_model, RuntimeOptions(backend="torch", threads=1)).load()
    torch.set_num_threads(threads)


@pytest.fixture
def plan(small_model: Path) -> ReplayPlan:
    """Two goals asked of the small network on every frame."""
    return ReplayPlan(
        (Goal(GOALS[0]), Goal(GOALS[1], "all")),
        ModelSettings(small_model, RuntimeOptions(backend="torch", threads=1), min_presence=0.0),
    )


def views(count: int) -> list[NDArray[Any]]:
    """A picture that slides by."""
    wide = blocks(5, 48, 64 + 8 * count)
    return [np.ascontiguousarray(wide[:, 4 * index : 4 * index + 64]) for index in range(count)]


def write_camera(
    path: Path, pictures: Sequence[NDArray[Any]], stamps: Sequence[int] | None = None, topic: str = "/eye"
) -> Path:
    """An MCAP bag of raw pictures, a tenth of a second apart unless stamped otherwise."""
    times = stamps if stamps is not None else [TENTH * (index + 1) for index in range(len(pictures))]
    messages = [
        (topic, RAW, TENTH * (place + 1), image(times[place], rgb)) for place, rgb in enumerate(pictures)
    ]
    return write(path, messages, StoragePlugin.MCAP)


@pytest.fixture(scope="package")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six raw pictures of 64x48 pixels on /eye. Do not write to it."""
    return write_camera(tmp_path_factory.mktemp("bags") / "slide", views(6))


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """A live replay keeps its process on this machine by variables, which tests after it must not inherit."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
