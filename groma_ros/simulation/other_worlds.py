"""Worlds of other simulators (robosuite, Miniworld) and their environment.

robosuite needs an older MuJoCo than this project, so both simulators are installed in `.venv-sim` by `make
setup-sim`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol

from groma_ros.simulation.world_objects import WorldSample
from groma_ros.worker_pool import die_with_parent

WORLDS = ("robosuite", "miniworld", "miniworld-base")
ROOT = Path(__file__).resolve().parents[2]
_LEAKING = (
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    "LD_LIBRARY_PATH",
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "PYTHONHOME",
)


class SimulatorUnavailable(RuntimeError):
    """A simulator that is not installed; the message says how to install it."""


class Renderer(Protocol):
    """Renders scenes by seed, as `scenes.SceneRenderer` does."""

    def render(self, seed: int) -> WorldSample: ...

    def close(self) -> None: ...

    def __enter__(self) -> Renderer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def is_installed(world: str) -> bool:
    """Whether this Python has the simulator of a world."""
    return importlib.util.find_spec(_package(world)) is not None


def _package(world: str) -> str:
    """The package of a world's simulator, with which the world's name begins: miniworld of miniworld-base."""
    return world.partition("-")[0]


def make_renderer(world: str, width: int, height: int) -> Renderer:
    """Make a renderer of one of `WORLDS`. Raises SimulatorUnavailable if its simulator is not installed."""
    if not is_installed(world):
        raise SimulatorUnavailable(
            f"{_package(world)} is not installed in this Python; run `make setup-sim`, which gives it "
            ".venv-sim."
        )
    if world == "robosuite":
        from groma_ros.simulation.robosuite_world import RobosuiteRenderer

        return RobosuiteRenderer(width, height)
    if world == "miniworld-base":
        from groma_ros.simulation.miniworld_base import BaseRenderer

        return BaseRenderer(width, height)
    from groma_ros.simulation.miniworld_world import MiniworldRenderer

    return MiniworldRenderer(width, height)


def simulator_python() -> Path:
    """Path of the Python in `.venv-sim`. Raises SimulatorUnavailable if there is none."""
    python = ROOT / ".venv-sim" / "bin" / "python"
    if not python.is_file():
        raise SimulatorUnavailable(
            "robosuite and Miniworld need an environment of their own: run `make setup-sim`."
        )
    return python


def simulator_environment() -> dict[str, str]:
    """Environment variables for a process of `.venv-sim`: the code of this checkout without the libraries of
    this Python."""
    kept = {key: value for key, value in os.environ.items() if key not in _LEAKING}
    return {**kept, "PYTHONPATH": str(ROOT)}


def run_elsewhere(module: str, arguments: Sequence[str]) -> int:
    """Run a module of this checkout in `.venv-sim`, which ends with this process; return its exit status."""
    command = [str(simulator_python()), "-m", module, *arguments]
    bound = partial(die_with_parent, os.getpid())
    return subprocess.run(command, env=simulator_environment(), check=False, preexec_fn=bound).returncode
