"""Builds the message packages into .venv with the ROS wheels: those of interfaces/, then this package.

The generated Python code is in lib/groma_ros_generated, outside site-packages, and is found through a .pth
file: `import groma_ros` finds the source tree, whose __path__ includes the generated half.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import system_packages
from common import PYTHON, ROOT, STATE, VENV, SetupError, digest, is_done, mark_done, run

GENERATED = "lib/groma_ros_generated"
ROOT_INPUTS = [ROOT / name for name in ("msg", "srv", "action", "CMakeLists.txt", "package.xml")]
STAND_INS = ("vision_msgs", "tf2_msgs", "nav2_msgs")
"""Packages of interfaces/: messages that a ROS distribution has but no wheel provides."""
# The wheels export the header folders of the machine they were built on. numpy 1 and numpy 2 have different
# ones, and the wrong one may have been written here before numpy was installed.
NUMPY = re.compile(r"/[^;\"]*/numpy/_?core/include")
FOREIGN_PYTHON = re.compile(r"/opt/python/[^;\"]*/include/python3\.\d+")


def header_folders() -> tuple[str, str]:
    """Python's and numpy's header folders, of the environment."""
    code = "import sysconfig, numpy; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    python, numpy = subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]
    return python, numpy


def patch_wheel_exports() -> None:
    """Points the exported cmake files of the wheels to this environment's headers; a second call changes
    nothing."""
    python, numpy = header_folders()
    for path in (VENV / "share").glob("*/cmake/*Export.cmake"):
        text = path.read_text()
        patched = FOREIGN_PYTHON.sub(lambda _: python, NUMPY.sub(lambda _: numpy, text))
        if patched != text:
            path.write_text(patched)


def discard_foreign_build(source: Path, work: Path) -> None:
    """Deletes the build folder `work` if it was configured for sources or a folder at another place: cmake
    refuses it after the checkout was moved or copied."""
    cache = work / "CMakeCache.txt"
    if not cache.exists():
        return
    entries = re.findall(
        r"^(CMAKE_HOME_DIRECTORY|CMAKE_CACHEFILE_DIR):INTERNAL=(.*)$", cache.read_text(), re.M
    )
    made_for = dict(entries)
    if made_for != {"CMAKE_HOME_DIRECTORY": str(source), "CMAKE_CACHEFILE_DIR": str(work)}:
        shutil.rmtree(work)


def build(source: Path, name: str) -> None:
    """Configures, builds and installs one interface package into .venv."""
    work = STATE / "build" / name
    discard_foreign_build(source, work)
    path = f"{VENV / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    environment = {"AMENT_PREFIX_PATH": str(VENV), "CMAKE_PREFIX_PATH": str(VENV), "PATH": path}
    options = [
        f"-DCMAKE_INSTALL_PREFIX={VENV}",
        f"-DPYTHON_INSTALL_DIR={GENERATED}",
        f"-DPython3_EXECUTABLE={PYTHON}",
        "-DBUILD_TESTING=OFF",
        "-DGROMA_INSTALL_PYTHON=OFF",
    ]
    failure = f"Building the messages of {name} failed"
    run(
        [VENV / "bin" / "cmake", "-S", source, "-B", work, "-G", "Ninja", "--no-warn-unused-cli", *options],
        failure,
        environment,
    )
    run([VENV / "bin" / "cmake", "--build", work, "--target", "install"], failure, environment)
    # pip would take these for an old groma_ros and delete the generated modules with it.
    for info in (VENV / GENERATED).glob("*.egg-info"):
        shutil.rmtree(info)


def write_path_file() -> None:
    """Adds the generated modules to the environment's import path."""
    site_packages = list((VENV / "lib").glob("python3.*/site-packages"))
    if not site_packages:
        raise SetupError(
            "The environment in .venv has no site-packages folder: delete .venv and start again."
        )
    (site_packages[0] / "groma_ros_generated.pth").write_text(f"{VENV / GENERATED}\n")


def ensure(packages_key: str, minor: int) -> bool:
    """Builds what changed since the last call; returns whether anything was built.

    packages_key: hash of the installed wheels, which the build links to; minor: the y of the environment's
    Python 3.y.
    """
    keys = {name: digest([ROOT / "interfaces" / name], packages_key) for name in STAND_INS}
    root_key = digest(ROOT_INPUTS, keys["vision_msgs"])
    stale = [name for name, key in keys.items() if not is_done(name, key)]
    if not stale and is_done("groma_ros", root_key):
        return False
    print("Building the messages (one to two minutes)", flush=True)
    system_packages.ensure_build_packages(str(PYTHON), minor)
    patch_wheel_exports()
    for name in stale:
        provided = (VENV / "share" / name).exists() and not (STATE / name).exists()
        if not provided:
            build(ROOT / "interfaces" / name, name)
            mark_done(name, keys[name])
    if not is_done("groma_ros", root_key):
        build(ROOT, "groma_ros")
    write_path_file()
    mark_done("groma_ros", root_key)
    return True
