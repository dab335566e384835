"""A simulator in a process of `.venv-sim`, and the pipe of JSON requests to the process that counts its
episodes.

The robot's inputs and outputs go over ROS topics. This pipe is for scoring: it starts episodes and reads
their results, which a program that drives the robot must not know.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from groma_ros.simulation.other_worlds import ROOT, simulator_environment, simulator_python


class SimulatorError(RuntimeError):
    """The simulator exited or did not answer; the message is one sentence."""


class SimulatorProcess:
    """A module of `.venv-sim` in a separate process; a context manager that ends it.

    log: file for its output; environment: variables in addition to this process's own. Raises
    SimulatorUnavailable if `make setup-sim` has not been run.
    """

    def __init__(self, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self._module, self._log = module, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [str(simulator_python()), "-m", module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**simulator_environment(), **environment},
                start_new_session=True,
            )

    def request(self, do: str, timeout: float = 600.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the answer. Raises SimulatorError if the simulator exited or does not
        answer in time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._process.stdin.flush()
        except OSError as error:
            raise SimulatorError(f"The simulator {self._module} has ended: {self._last_line()}") from error
        end = time.monotonic() + timeout
        while not select.select([self._process.stdout], [], [], 0.5)[0]:
            if self._process.poll() is not None:
                raise SimulatorError(f"The simulator {self._module} ended: {self._last_line()}")
            if time.monotonic() > end:
                raise SimulatorError(
                    f"The simulator {self._module} did not answer {do!r} within {timeout:.0f} s."
                )
        line = self._process.stdout.readline()
        if not line:
            raise SimulatorError(f"The simulator {self._module} ended: {self._last_line()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SimulatorError(f"The simulator {self._module} failed at {do!r}: {answer['error']}")
        return answer

    def _last_line(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1]} (log: {self._log})" if lines else f"it said nothing (log: {self._log})"

    @property
    def running(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Requests:
    """The simulator's end of the pipe: reads requests from standard input, writes answers to standard output.

    Everything else that is printed goes to standard error.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._rest = b""
        self.closed = False

    def poll(self) -> dict[str, Any] | None:
        """Return the next request, or None; `closed` is true once the other end has closed."""
        while b"\n" not in self._rest and select.select([sys.stdin.fileno()], [], [], 0)[0]:
            data = os.read(sys.stdin.fileno(), 65536)
            if not data:
                self.closed = True
                return None
            self._rest += data
        line, found, rest = self._rest.partition(b"\n")
        if not found:
            return None
        self._rest = rest
        request: dict[str, Any] = json.loads(line)
        return request

    def answer(self, **values: Any) -> None:
        """Answer the last request."""
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()
