"""Fixtures for talking to a node process over DDS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from groma_ros.client.demo.processes import dds_environment
from groma_ros.grounding.grounder import Grounder
from tests.domains import own_domain, reserved_domain
from tests.node.robot import Robot
from tests.small import blocks

# Both ends of every test use the profile that ships: without it, large best-effort images get lost on a busy
# machine.
os.environ.update(dds_environment())


@pytest.fixture(scope="session")
def grounder(small_model: Path) -> Grounder:
    """The same model in this process: its answers are expected of the node."""
    return Grounder.load(small_model, min_presence=0.0)


@pytest.fixture(scope="session")
def domain() -> int:
    """A DDS domain of this test process's own, so that tests in parallel do not hear each other."""
    return own_domain()


@pytest.fixture
def other_domain() -> Iterator[int]:
    """A domain with no other node in it."""
    with reserved_domain() as domain:
        yield domain


@pytest.fixture
def robot(domain: int) -> Iterator[Robot]:
    """A camera, an operator and a listener in this process."""
    with Robot(domain) as robot:
        yield robot


@pytest.fixture(scope="session")
def picture() -> NDArray[Any]:
    """A uint8 48x64x3 picture with structure."""
    return blocks(5)
