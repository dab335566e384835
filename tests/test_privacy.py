"""Files written and connections opened by `groma ground` and the node, observed from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.domains import own_domain

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "demo" / "frame.png"
SECONDS = 10.0
CALLS = "trace=connect,sendto,sendmsg,sendmmsg,openat,creat,mkdir,mkdirat,rename,renameat2"
LOCAL = re.compile(
    r'inet_addr\("(127\.|224\.|225\.|239\.|0\.0\.0\.0)|"::1"|sa_family=AF_(UNIX|NETLINK|LOCAL)'
)

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="watching system calls needs strace")


def environment(home: Path) -> dict[str, str]:
    """That of this process with another home, and without the switches that this package sets itself."""
    from groma_ros import TELEMETRY_SWITCHES

    kept = {name: value for name, value in os.environ.items() if name not in TELEMETRY_SWITCHES}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "ROS_LOG_DIR", "ROS_HOME"):
        kept.pop(name, None)
    ros = {"ROS_DOMAIN_ID": str(own_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return {**kept, "HOME": str(home), **ros}


def watched(command: list[str], home: Path, seconds: float | None) -> str:
    """The system calls of a command and its children; seconds: after which it is interrupted."""
    log = home.parent / "calls"
    whole = ["strace", "-f", "-qq", "-s", "200", "-e", CALLS, "-o", str(log), *command]
    process = subprocess.Popen(
        whole,
        env=environment(home),
        cwd=home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        if seconds is None:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
        else:
            end = time.monotonic() + 240
            while time.monotonic() < end and "onnxruntime_pybind11_state" not in _text(log):
                assert process.poll() is None, process.stdout and process.stdout.read()
                time.sleep(0.5)
            assert "onnxruntime_pybind11_state" in _text(log), "the model was not loaded in time"
            time.sleep(seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return _text(log)


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def foreign(calls: str) -> list[str]:
    """Calls that reach for another machine: an address that is not this one's or a group's, or a look-up of a
    name, which goes to port 53."""
    lines = [line for line in calls.splitlines() if "sa_family=AF_INET" in line]
    local = own_addresses()
    return [
        line
        for line in lines
        if "htons(53)" in line or not (LOCAL.search(line) or any(f'"{address}"' in line for address in local))
    ]


def own_addresses() -> set[str]:
    """The addresses of this machine, to which DDS also sends."""
    import socket

    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return found


def written(home: Path) -> set[str]:
    """Files below a home, by their path in it."""
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_ground_writes_no_files_and_opens_no_connections(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = "from groma_ros.cli import main; main()"
    command = [sys.executable, "-c", code, "ground", "--image", str(PICTURE), "--goal", "the red mug"]
    calls = watched([*command], home, None)
    assert "onnxruntime_pybind11_state" in calls
    assert foreign(calls) == [] and written(home) == set()


def test_node_connects_to_no_other_machine(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    home = tmp_path / "home"
    home.mkdir()
    code = "import sys; from groma_ros.node.main import main; sys.exit(main())"
    calls = watched([sys.executable, "-c", code], home, SECONDS)
    assert foreign(calls) == []
    assert {path for path in written(home) if not path.startswith(".ros/log/")} == set()
    assert "microsoft" not in calls.lower()
