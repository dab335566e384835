"""The wheel in an environment with its declared dependencies only."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from groma_ros.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def closure(requirements: list[str]) -> set[str]:
    """Distributions that requirements need, and theirs, as they are installed here; extras are left out."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        text = waiting.pop()
        if "extra ==" in text:
            continue
        name = re.match(r"[A-Za-z0-9._-]+", text)
        assert name is not None
        key = re.sub(r"[-_.]+", "-", name[0]).lower()
        try:
            distribution = importlib.metadata.distribution(key)
        except importlib.metadata.PackageNotFoundError:
            continue  # for other systems or versions of Python
        if key not in found:
            found.add(key)
            waiting += distribution.requires or []
    return found


def link_distributions(names: set[str], folder: Path) -> None:
    """Make distributions of this environment importable from a folder, and nothing else of it."""
    for name in names:
        distribution = importlib.metadata.distribution(name)
        tops = {
            path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")
        }
        for top in tops:
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)


def copy_source(folder: Path) -> None:
    """Copy the tracked files that a wheel is built from."""
    names = ["groma_ros", "engines", "msg", "interfaces", "setup.py", "pyproject.toml", "MANIFEST.in"]
    folder.mkdir(parents=True)
    for name in [*names, "README.md", "LICENSE"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder `bin` of an environment with the wheel, built from a copy of the tracked files."""
    base = tmp_path_factory.mktemp("wheel")
    source, wheels, made = base / "source", base / "wheels", base / "env"
    copy_source(source)
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    venv.create(made, with_pip=False)
    (wheel,) = wheels.glob("groma_ros-*.whl")
    install = [
        "--python",
        str(made / "bin" / "python"),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    (site,) = made.glob("lib/python*/site-packages")
    (distribution,) = importlib.metadata.distributions(name="groma_ros", path=[str(site)])
    declared = distribution.requires or []
    link_distributions(closure([text for text in declared if "extra ==" not in text]), site)
    yield made / "bin"


def run(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the environment, with nothing of the checkout in reach."""
    kept = {"PATH": f"{environment}:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    if "OPENBLAS_CORETYPE" in os.environ:
        kept["OPENBLAS_CORETYPE"] = os.environ["OPENBLAS_CORETYPE"]
    command = [str(environment / arguments[0]), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=kept, check=False)


def test_it_answers_a_goal_with_the_model_it_ships(environment: Path, tmp_path: Path) -> None:
    assert run(environment, tmp_path, "python", "-c", "import torch").returncode != 0
    picture = str(ROOT / "demo" / "frame.png")
    done = run(
        environment, tmp_path, "groma", "ground", "--image", picture, "--goal", "the red mug", "--json"
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["groundings"]
    own = subprocess.run(
        [
            sys.executable,
            "-m",
            "groma_ros.cli",
            "ground",
            "--image",
            picture,
            "--goal",
            "the red mug",
            "--json",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert answer["detections"] and answer == json.loads(own.stdout)["groundings"][0]


def test_it_names_itself_and_its_model(environment: Path, tmp_path: Path) -> None:
    version = importlib.metadata.version("groma_ros")
    assert run(environment, tmp_path, "groma", "--version").stdout == f"groma {version}\n"
    listed = json.loads(run(environment, tmp_path, "groma", "models", "--json").stdout)
    assert listed["folder"] == str(tmp_path / ".local/share/groma_ros/models")
    assert [(row["name"], row["ok"], row["origin"]) for row in listed["models"]] == [
        ("groma-tiny", True, "ships with groma_ros")
    ]


def test_every_command_has_help_without_torch(environment: Path, tmp_path: Path) -> None:
    code = (
        "import contextlib, io, sys; from groma_ros.cli import COMMANDS, _run\n"
        "for name in COMMANDS:\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        try: _run([*name.split(), '--help'])\n"
        "        except SystemExit as ended: assert ended.code == 0, name\n"
        "    assert 'example: groma ' + name in out.getvalue(), name\n"
        "    print(name)"
    )
    done = run(environment, tmp_path, "python", "-c", code)
    assert done.returncode == 0 and done.stdout.splitlines() == list(COMMANDS), done.stderr


def test_the_node_helps_without_ros(environment: Path, tmp_path: Path) -> None:
    done = run(environment, tmp_path, "groma_node", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: groma_node ")
    done = run(environment, tmp_path, "groma_node")
    assert done.returncode == 1 and "source your ROS 2 distribution" in done.stderr


def test_the_definitions_of_its_messages_are_there(environment: Path, tmp_path: Path) -> None:
    code = "from groma_ros.io.message_definitions import typestore as t; print(*t().types)"
    done = run(environment, tmp_path, "python", "-c", code)
    assert "groma_ros/msg/GroundingArray" in done.stdout and "vision_msgs/msg/Detection2DArray" in done.stdout
