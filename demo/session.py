"""What the two demonstrations have in common: processes, camera subscriptions, and the loop over episodes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from demo.episodes import Row, described, write_summary
from demo.pictures import Told, write_film, write_strip
from demo.simulator_process import SimulatorError, SimulatorProcess
from examples.ask import Answer, GoalAsker, NodeLost, Outcome
from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.client.groma_client import GromaClient
from groma_ros.types import Frame, Intrinsics

FINDERS = ("node", "true", "random")
START_SECONDS = 240.0
PICTURE_SECONDS = 60.0
LOST = "simulator ended"
"""Outcome and cause of an episode whose simulator exited."""
SETTLED = 0.5
"""Simulated time from the start of an episode to the first question."""


class CameraListener(Node):
    """Keeps the latest image of the camera with its depth. frame: the camera's optical frame."""

    def __init__(self, name: str, frame: str) -> None:
        super().__init__(name)
        self._frame_id = frame
        self.stamp = 0.0
        self.images = 0
        self.rgb: Any = None
        self._depth: Any = None
        self._info: CameraInfo | None = None
        self.create_subscription(Image, "camera/image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(Image, "camera/depth", self._on_depth, qos_profile_sensor_data)
        self.create_subscription(CameraInfo, "camera/camera_info", self._on_info, qos_profile_sensor_data)

    def wait_after(self, time: float) -> None:
        """Wait for an image later than a time of the simulated clock, so that none of the previous episode is
        used. Raises as `wait_until`."""
        self.wait_until(lambda: self.stamp >= time + SETTLED)

    def wait_until(self, done: Callable[[], bool], seconds: float = PICTURE_SECONDS) -> None:
        """Process messages until `done()`. Raises SimulatorError after this many seconds of wall time."""
        end = monotonic() + seconds
        while not done():
            rclpy.spin_once(self, timeout_sec=0.1)
            if monotonic() > end:
                raise SimulatorError(f"The simulator sent no new picture within {seconds:.0f} s.")

    def frame(self) -> Frame:
        """The latest image, with its depth in metres."""
        assert self._info is not None and self.rgb is not None and self._depth is not None
        k, width, height = self._info.k, self._info.width, self._info.height
        intrinsics = Intrinsics(k[0], k[4], k[2], k[5], width, height)
        return Frame(self.rgb, 0, self._frame_id, self._depth, intrinsics)

    def _on_image(self, message: Image) -> None:
        self.rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        self.stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self.images += 1

    def _on_depth(self, message: Image) -> None:
        self._depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message


@dataclass(frozen=True)
class Setup:
    """Processes and frames of a demonstration."""

    name: str
    simulator: str
    """Module of the simulator, run in `.venv-sim`."""
    camera_frame: str
    target_frame: str
    """Fixed frame of the node's target poses."""
    approach: str
    """The node's parameter `target_approach`."""
    helpers: tuple[tuple[str, str], ...] = ()
    """Further modules to run, and the names of their logs."""


def start_node(log: Path, setup: Setup, model: str) -> Child:
    """Start the node on the simulated camera, with target poses in the fixed frame."""
    settings = {
        "model": model,
        "target_frame": setup.target_frame,
        "target_approach": setup.approach,
        "depth_wait": 0.5,
        "min_margin": 0.2,
        "use_sim_time": "true",
    }
    arguments = ["--ros-args"]
    for name, value in settings.items():
        if value != "":
            arguments += ["-p", f"{name}:={value}"]
    for topic in ("image", "depth", "camera_info"):
        arguments += ["-r", f"{topic}:=camera/{topic}"]
    return Child("groma_ros.node.main", arguments, log, {})


class Session:
    """Simulator, transforms, helpers and, for the finder `node`, the node; all end when the stack is
    closed."""

    def __init__(self, setup: Setup, out: Path, finder: str, model: str, stack: ExitStack) -> None:
        os.environ.update({"ROS_DOMAIN_ID": str(unused_domain()), **dds_environment()})
        self._domain = {name: os.environ[name] for name in ("ROS_DOMAIN_ID", *dds_environment())}
        self._setup, self._logs, self._stack = setup, out / "logs", stack
        self._restarts: Counter[str] = Counter()
        self.simulator = self._start_simulator("simulator")
        self._starts: dict[str, Callable[[Path], Child]] = {
            "frames": lambda log: Child("demo.robot_frames", [setup.camera_frame], log, {})
        }
        for module, name in setup.helpers:
            self._starts[name] = lambda log, module=module: Child(module, [], log, {})  # type: ignore[misc]
        if finder == "node":
            self._starts["node"] = lambda log: start_node(log, setup, model)
        self.children = {name: self._start_child(name, name) for name in self._starts}
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        self.camera = CameraListener(f"{setup.name}_demo", setup.camera_frame)
        stack.callback(self.camera.destroy_node)
        self.asker = GoalAsker(stack.enter_context(GromaClient()))
        self.finder = finder

    def _start_simulator(self, log: str) -> SimulatorProcess:
        process = SimulatorProcess(self._setup.simulator, self._logs / f"{log}.log", self._domain)
        return self._stack.enter_context(process)

    def _start_child(self, name: str, log: str) -> Child:
        return self._stack.enter_context(self._starts[name](self._logs / f"{log}.log"))

    def recover(self, episode: int) -> list[str]:
        """Restart what has exited since the last episode, wait until the node is active, and return the names
        of what was restarted. episode: its number, for the names of the logs: simulator-3, and simulator-3-2
        for a second restart in that episode. Raises as `wait_until_ready`."""
        started = [name for name, child in self.children.items() if not child.running]
        for name in started:
            self.children[name] = self._start_child(name, self._log_name(name, episode))
        if not self.simulator.running:
            started.append("simulator")
            self.simulator = self._start_simulator(self._log_name("simulator", episode))
            self.camera.stamp = 0.0  # its clock starts at zero again
        if started:
            self.wait_until_ready()
        return started

    def _log_name(self, name: str, episode: int) -> str:
        log = f"{name}-{episode}"
        self._restarts[log] += 1
        return log if self._restarts[log] == 1 else f"{log}-{self._restarts[log]}"

    def wait_until_ready(self) -> None:
        """Wait until the node is active. Raises NodeLost, or SimulatorError if a process has exited."""
        end = monotonic() + START_SECONDS
        while True:
            for child in self.children.values():
                if not child.running:
                    raise SimulatorError(f"{child.name} ended: {child.last_line()} (log: {child.log})")
            if self.finder != "node":
                return
            try:
                self.asker.ready(3.0)
                return
            except NodeLost:
                if monotonic() > end:
                    raise

    def start_episode(self, seed: int) -> dict[str, Any]:
        """Start the episode of a seed and wait for its first image. Returns its goal and ground truth."""
        episode = self.simulator.request("reset", seed=seed)
        self.camera.wait_after(episode["time"])
        return episode

    def ask(self, other: Callable[[], Callable[[str], Answer]]) -> Callable[[str], Answer]:
        """Return the function that answers goals: the node's, or the one created by `other` for other
        finders."""
        return self.asker.ask if self.finder == "node" else other()


class Demonstration(ABC):
    """A demonstration as run by `make`: episodes, a JSON file, a strip of pictures and a film."""

    setup: Setup
    wrong: str
    """Key under which wrong lifts or false arrivals are counted."""

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        """The options of the command line; `self.args` has their values."""
        parser = argparse.ArgumentParser(
            prog=f"python -m demo.{self.setup.name}.run", description=description
        )
        parser.add_argument("--seeds", type=int, default=20, help="episodes (default 20)")
        parser.add_argument("--first-seed", type=int, default=0, help="seed of the first (default 0)")
        parser.add_argument("--out", type=Path, default=Path("out"), help="folder for results (default out)")
        parser.add_argument("--model", default="", help="model bundle (default: the one that ships)")
        help_ = "who finds the thing: the node, the true boxes (ceiling) or a random object (floor)"
        parser.add_argument("--finder", choices=FINDERS, default="node", help=help_)
        parser.add_argument(
            "--film", type=int, default=6, help="episodes whose pictures are kept (default 6)"
        )
        return parser

    @abstractmethod
    def open(self, session: Session) -> None:
        """Connect to the robot."""

    @abstractmethod
    def episode(
        self, session: Session, seed: int, episode: dict[str, Any], film: str
    ) -> tuple[Row, Outcome, Any]:
        """Run an episode that the simulator has started. Returns its row, the bridge's outcome, and the image
        of the question."""

    def pictures(self, film: Path) -> list[Path]:
        """The pictures of an episode in a folder."""
        return sorted(film.glob("*.jpg"))

    def figures(self, rows: list[Row]) -> dict[str, Any]:
        """Further entries of the JSON file."""
        return {}

    def line(self, row: Row, outcome: Outcome) -> str:
        """The line printed after an episode."""
        why = f" ({row.cause}): {outcome.sentence}" if row.cause else ""
        return f"{row.seed}: {row.goal!r}: {row.outcome}{why}"

    def closing(self, document: dict[str, Any]) -> list[str]:
        """Further lines of the printed summary."""
        return []

    def main(self, description: str | None) -> int:
        """Run the episodes of the command line and write the results. Returns the exit status."""
        cv2.setNumThreads(1)
        # Handle it like Ctrl-C, so that the child processes end too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.args = args = self.parser(description).parse_args()
        name = self.setup.name if args.finder == "node" else f"{self.setup.name}-{args.finder}"
        rows: list[Row] = []
        told: list[Told] = []
        interrupted = False
        # Around the stack as well: closing it ends the processes, which takes seconds.
        try:
            with ExitStack() as stack:
                self._episodes(args, name, stack, rows, told)
        except (SimulatorError, RuntimeError, TimeoutError, OSError) as error:
            print(f"demo-{self.setup.name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"demo-{self.setup.name}: interrupted; what was done is written.", file=sys.stderr)
            interrupted = True
        if not rows:
            return 1
        write_strip(args.out / f"{name}.png", told)
        write_film(args.out / f"{name}.mp4", told)
        document = self._write(args, name, rows)
        print("\n".join([described(document, self.wrong), *self.closing(document)]))
        print(f"Written: {args.out / name}.json, .png and .mp4")
        return int(interrupted)

    def _episodes(
        self, args: argparse.Namespace, name: str, stack: ExitStack, rows: list[Row], told: list[Told]
    ) -> None:
        session = Session(self.setup, args.out, args.finder, args.model, stack)
        self.open(session)
        print("Simulator and node are starting.", flush=True)
        session.wait_until_ready()
        for index in range(args.seeds):
            seed = args.first_seed + index
            film = args.out / "film" / f"{name}-{seed}" if index < args.film else None
            if started := session.recover(index):
                print(f"Started again: {', '.join(started)}.", flush=True)
            episode = self._start(session, seed, index)
            picture = None
            try:
                row, outcome, picture = self.episode(
                    session, seed, episode, str(film.resolve()) if film else ""
                )
            except SimulatorError as error:
                session.simulator.kill()  # it may hang; only an exited process is restarted
                row, outcome = lost_episode(seed, episode), Outcome(LOST, str(error), None)
            rows.append(row)
            print(self.line(row, outcome), flush=True)
            if film is not None and picture is not None:
                told.append((picture, self.pictures(film), row, outcome))
            self._write(args, name, rows)

    def _start(self, session: Session, seed: int, index: int) -> dict[str, Any]:
        """Start the episode of a seed, with one retry in a new simulator if the first exits or hangs. Raises
        SimulatorError if the second does too."""
        try:
            return session.start_episode(seed)
        except SimulatorError as error:
            session.simulator.kill()
            started = session.recover(index)
            print(f"{seed}: {error} Started again: {', '.join(started)}.", flush=True)
            return session.start_episode(seed)

    def _write(self, args: argparse.Namespace, name: str, rows: Sequence[Row]) -> dict[str, Any]:
        path = args.out / f"{name}.json"
        return write_summary(path, rows, self.wrong, finder=args.finder, **self.figures(list(rows)))


def lost_episode(seed: int, episode: dict[str, Any]) -> Row:
    """The row of an episode whose simulator exited before it was asked for the score."""
    goal = episode["goal"]
    return Row(seed, goal["text"], goal["kind"], bool(goal["targets"]), LOST, LOST)
