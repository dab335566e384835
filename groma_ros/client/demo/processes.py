"""Child processes with a log file each, which are interrupted, then killed, when their parent is done; what
they need to talk over DDS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

DOMAINS = range(1, 101)
"""DDS domains whose ports are below those that Linux hands out to other sockets."""
_claims: dict[int, socket.socket] = {}
"""Domains that this process was given, and what holds them."""


def unused_domain() -> int:
    """Return one of DOMAINS in which no process of this machine takes part, and that no other process gets
    from this function until the caller's has ended. The search begins at a number that depends on the
    process.

    Raises RuntimeError if all are used.
    """
    order = [DOMAINS[(os.getpid() + step) % len(DOMAINS)] for step in range(len(DOMAINS))]
    order.sort(key=lambda domain: domain in _claims)  # what this process had before comes last
    found = next((domain for domain in order if not domain_is_used(domain) and _claim(domain)), None)
    if found is None:
        raise RuntimeError(
            f"All DDS domains from {DOMAINS[0]} to {DOMAINS[-1]} are used on this machine; end some of the "
            "ROS processes that use them."
        )
    return found


def _claim(domain: int) -> bool:
    """Whether the domain is this process's until it ends. Two programs that start together would both find
    it unused. The name is in Linux's abstract namespace: one process can bind it, nothing is left behind, and
    it belongs to the same network namespace as the ports."""
    if domain in _claims:
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0groma_ros/domain/{domain}")
    except OSError:
        claim.close()
        return False
    _claims[domain] = claim
    return True


def domain_is_used(domain: int) -> bool:
    """Whether a process of this machine takes part in a DDS domain, told by the ports of its first four
    participants."""
    first = 7400 + 250 * domain + 10
    return any(_is_bound(first + 2 * participant) for participant in range(4))


def _is_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def dds_environment() -> dict[str, str]:
    """Environment variables, by their old and new names, that make Fast DDS use the profile of a checkout."""
    profile = Path(__file__).resolve().parents[3] / "config" / "fastdds.xml"
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    return dict.fromkeys(names, str(profile)) if profile.is_file() else {}


class Child:
    """A Python module in a separate process; a context manager that ends it.

    log: file for its output; environment: variables in addition to this process's own.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = module, log
        with log.open("wb") as stream:
            # In a process group of its own, so that Ctrl-C in the terminal reaches only the parent, which
            # then ends its children in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def output(self) -> str:
        """Return the output so far."""
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float) -> int:
        """Wait for the exit status. Raises TimeoutError with the last line of output if the process is still
        running after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.name} still runs after {timeout:.0f} s; it last said: {self.last_line()}"
            ) from None

    def interrupt(self, number: signal.Signals = signal.SIGINT, grace: float = 10.0) -> tuple[int, float]:
        """Send the signal, and kill the process after `grace` seconds. Returns its exit status and the
        seconds until it ended."""
        start = time.monotonic()
        if self.running:
            self._process.send_signal(number)
        try:
            status = self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status, time.monotonic() - start

    def last_line(self) -> str:
        """Return the last line of output."""
        return next((line for line in reversed(self.output().splitlines()) if line.strip()), "nothing")

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.interrupt()
