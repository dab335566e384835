"""Makes .venv-sim: the simulators robosuite and Miniworld of requirements/sim.txt, with ROS 2 from wheels.

They need an older MuJoCo than .venv has. Stamped with the hash of the lock, so a second run does nothing.
Needs Python's standard library only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time

import system_packages
from common import ROOT, SIM_VENV, SetupError, clean_environment, digest, is_done, mark_done, run
from setup_env import RANGE, choose_python

STATE = SIM_VENV / "groma_setup"
LOCK = ROOT / "requirements" / "sim.txt"


def ensure_packages(wanted: str) -> None:
    """Recreates the environment if the lock has changed. Raises SetupError."""
    python, minor = choose_python(wanted)
    key = digest([LOCK], f"3.{minor}")
    if is_done("packages", key, STATE):
        return
    system_packages.ensure_build_packages(python, minor)
    print(f"Making .venv-sim with Python 3.{minor} (minutes, the first time; 1.5 GB)", flush=True)
    shutil.rmtree(SIM_VENV, ignore_errors=True)
    if subprocess.run([python, "-m", "venv", str(SIM_VENV)], env=clean_environment(), check=False).returncode:
        raise SetupError(
            f"{python} could not make the environment .venv-sim (see above): delete it and start again."
        )
    STATE.mkdir()
    # The lock is complete; packages left out on purpose must not return as dependencies.
    options = "--no-compile", "--no-deps", "--require-hashes", "-r", str(LOCK)
    failure = "Installing the simulators failed"
    run([SIM_VENV / "bin" / "python", "-m", "pip", "install", *options], failure, state=STATE)
    mark_done("packages", key, STATE)


def ensure_rendering() -> None:
    """Installs the library both simulators render with. Raises SetupError if it is missing and cannot be
    installed."""
    if not system_packages.can_render("libGL.so.1", "libGLU.so.1"):
        system_packages.install(system_packages.SIMULATOR_PACKAGES, "the simulators' pictures")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--python", default="", help=f"interpreter to build on, Python {RANGE}; default: the first that fits"
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        ensure_packages(arguments.python)
        ensure_rendering()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    if seconds > 1:
        print(f".venv-sim is ready ({seconds:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
