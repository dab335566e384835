"""System packages: a C++ compiler, Python's headers and venv module; Mesa's EGL for rendering; for the tests
a browser (the page of groma live) and strace (files and connections).

Missing packages are installed with apt-get if the user may do so; otherwise one sentence names them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

from common import SetupError

EGL_PACKAGES = ["libegl1", "libgl1-mesa-dri", "libgles2"]
BROWSER_PACKAGES = ["chromium"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Executables that the tests of groma live can drive."""
TRACE_PACKAGES = ["strace"]
SIMULATOR_PACKAGES = [*EGL_PACKAGES, "libgl1", "libglu1-mesa"]
EGL_VENDOR_FOLDERS = [Path("/usr/share/glvnd/egl_vendor.d"), Path("/etc/glvnd/egl_vendor.d")]
PROBE = (
    "import os, sysconfig\n"
    "print('headers', os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')))\n"
    "try:\n    import ensurepip, venv\nexcept ImportError:\n    print('venv', False)\n"
)


def missing_build_packages(python: str, minor: int) -> list[str]:
    """Debian names of the packages that the message build lacks, for the interpreter `python` of version
    3.<minor>."""
    missing = [] if shutil.which(os.environ.get("CXX", "c++")) else ["g++"]
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False).stdout
    if "headers False" in probe:
        missing.append(f"python3.{minor}-dev")
    if "venv False" in probe:
        missing.append(f"python3.{minor}-venv")
    return missing


def ensure_build_packages(python: str, minor: int) -> None:
    """Installs the system packages that the message build needs.

    Raises SetupError naming the packages if they are missing and cannot be installed.
    """
    missing = missing_build_packages(python, minor)
    if missing:
        install(missing, "building the messages")


def can_render(*more: str) -> bool:
    """Whether EGL, with a driver behind it, can be loaded, which rendering without a screen needs. more:
    further libraries."""
    for library in ("libEGL.so.1", "libGLESv2.so.2", *more):
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
    return any(folder.glob("*.json") for folder in EGL_VENDOR_FOLDERS if folder.is_dir())


def has_browser() -> bool:
    """Whether there is a browser for the tests of groma live."""
    return any(map(shutil.which, BROWSERS))


def has_tracer() -> bool:
    """Whether tests can trace the system calls of a process."""
    return shutil.which("strace") is not None


def install(packages: list[str], purpose: str) -> None:
    """Installs Debian packages.

    Raises SetupError naming the packages if this user may not install or the installation fails.
    """
    command = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(
            f"{purpose} needs system packages that are missing: run `sudo {command}` and start again."
        )
    print(f"Installing system packages for {purpose}: {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        result = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (
            result.stderr.strip().splitlines()[-1]
            if result.stderr.strip()
            else f"exit code {result.returncode}"
        )
        raise SetupError(f"`{command}` failed: {reason}. Install these packages by hand and start again.")
