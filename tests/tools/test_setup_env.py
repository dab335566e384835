"""Setup scripts, as far as possible without creating an environment: errors, stamps, patched exports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPORT = """
set(INCLUDES "${_IMPORT_PREFIX}/include/a;/opt/python/cp311-cp311/include/python3.11")
set(NUMPY "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;/usr/include")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what set-up reads, without an environment."""
    for name in ("tools", "requirements", "interfaces", "msg", "srv", "action"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "CMakeLists.txt", "package.xml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def load(tree: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that builds the messages, of the copied tree."""
    for name in ("build_messages", "common", "system_packages"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tree / "tools")
    import build_messages

    return build_messages


def set_up(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tree / "tools" / "setup_env.py"), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "ROS_DISTRO"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_an_interpreter_that_does_not_fit_is_refused_in_a_sentence(tree: Path) -> None:
    result = set_up(tree, "--python", "/no/such/python")
    assert result.returncode == 1
    assert (
        result.stderr
        == "PYTHON=/no/such/python cannot be used: name an interpreter of Python 3.10, 3.11 or 3.12.\n"
    )
    assert not (tree / ".venv").exists()


def test_an_environment_of_another_python_is_refused_in_a_sentence(tree: Path) -> None:
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tree / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.9.2\n")
    result = set_up(tree)
    assert result.returncode == 1
    assert result.stderr == ".venv holds Python 3.9, not 3.10, 3.11 or 3.12: delete .venv and start again.\n"


@pytest.mark.parametrize(
    ("arguments", "sourced", "environment", "options"),
    [
        ((), "humble", ".venv", ""),
        (
            ("ROS_DISTRO=kilted",),
            "humble",
            ".venv-kilted",
            "-o testpaths=tests/node -o cache_dir=.cache/pytest-kilted ",
        ),
    ],
)
def test_the_distribution_given_to_make_chooses_environment_and_tests(
    arguments: tuple[str, ...], sourced: str, environment: str, options: str
) -> None:
    show = "show: ; @echo $${ROS_DISTRO:-none} $(GROMA_WHEELS) $(VENV) -m pytest $(OTHER_WHEELS)"
    command = ["make", "--no-print-directory", "--eval", show, "show", *arguments]
    # make hands the arguments of a make above on to this one.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(
        command, cwd=ROOT, env=clean | {"ROS_DISTRO": sourced}, capture_output=True, text=True, check=True
    )
    # A sourced distribution is passed on for set-up to mention; one that was given to make is not.
    wanted = ("none kilted" if arguments else "humble jazzy") + f" {environment} -m pytest {options}"
    assert result.stdout.split() == wanted.split()


def test_a_step_is_done_again_only_when_its_inputs_changed(tree: Path, load: ModuleType) -> None:
    common = sys.modules["common"]
    common.STATE.mkdir(parents=True)
    key = common.digest(load.ROOT_INPUTS, "wheels 1")
    common.mark_done("groma_ros", key)
    assert common.is_done("groma_ros", common.digest(load.ROOT_INPUTS, "wheels 1"))
    assert not common.is_done("groma_ros", common.digest(load.ROOT_INPUTS, "wheels 2"))
    (tree / "msg" / "Goal.msg").write_text("string text\n")
    assert not common.is_done("groma_ros", common.digest(load.ROOT_INPUTS, "wheels 1"))


def test_exports_of_the_wheels_are_pointed_at_this_environment_once(
    tree: Path, load: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tree / ".venv" / "share" / "a_msgs" / "cmake" / "export_a_msgsExport.cmake"
    export.parent.mkdir(parents=True)
    export.write_text(EXPORT)
    monkeypatch.setattr(load, "PYTHON", Path(sys.executable))
    python, numpy = load.header_folders()
    assert (Path(python) / "Python.h").is_file()
    assert (Path(numpy) / "numpy" / "arrayobject.h").is_file()
    load.patch_wheel_exports()
    first = export.read_text()
    assert f'set(INCLUDES "${{_IMPORT_PREFIX}}/include/a;{python}")' in first
    assert f'set(NUMPY "{numpy};/usr/include")' in first
    load.patch_wheel_exports()
    assert export.read_text() == first
    export.write_text(
        first.replace(numpy, "/elsewhere/numpy/core/include")
    )  # another numpy was installed before
    load.patch_wheel_exports()
    assert export.read_text() == first


def test_a_missing_compiler_is_named_by_its_package(
    load: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_packages = sys.modules["system_packages"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(
        sys.modules["common"].SetupError, match="building the messages needs .*sudo apt-get install g\\+\\+"
    ):
        system_packages.ensure_build_packages(sys.executable, 11)


@pytest.mark.parametrize(
    ("source", "folder", "kept"),
    [("here", "here", True), ("elsewhere", "here", False), ("here", "elsewhere", False)],
)
def test_a_build_folder_of_another_place_is_discarded(
    load: ModuleType, tree: Path, source: str, folder: str, kept: bool
) -> None:
    work = tree / "build"
    work.mkdir()
    places = {"here": tree, "elsewhere": Path("/elsewhere")}
    (work / "CMakeCache.txt").write_text(
        f"CMAKE_HOME_DIRECTORY:INTERNAL={places[source]}\n"
        f"CMAKE_CACHEFILE_DIR:INTERNAL={places[folder] / 'build'}\n"
    )
    load.discard_foreign_build(tree, work)
    assert work.exists() is kept


def test_all_but_torch_is_installed_with_hashes(
    tree: Path, load: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "setup_env", raising=False)
    import setup_env

    common, ran = sys.modules["common"], []
    common.STATE.mkdir(parents=True)
    monkeypatch.setattr(
        setup_env, "run", lambda command, failure: ran.append([str(word) for word in command])
    )
    monkeypatch.setenv("TORCH_INDEX_URL", "https://example.org/cpu")
    setup_env.ensure_packages("full", 11)
    (hashed, torch), copy = ran, common.STATE / "full.txt"
    assert hashed[4:] == ["--no-compile", "--require-hashes", "--no-deps", "-r", str(copy)]
    pins = (tree / "requirements" / "full.txt").read_text()
    version = next(line.split()[0] for line in pins.splitlines() if line.startswith("torch=="))
    assert torch[4:] == ["--no-compile", "--index-url", "https://example.org/cpu", version]
    left = [line for line in pins.splitlines() if line not in copy.read_text().splitlines()]
    assert left[0].startswith("torch==") and all(line.startswith("    --hash=") for line in left[1:])
    assert "torch==" not in copy.read_text() and "\ntokenizers==" in copy.read_text()
    ran.clear()
    setup_env.ensure_packages("full", 11)
    setup_env.ensure_packages("runtime", 11)  # the full lock holds it
    assert ran == []
