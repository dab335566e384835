"""Episodes of going somewhere: simulator, node, driver and bridge over ROS topics, counted by the simulator.

`make demo-navigate SEEDS=N FIRST_SEED=S` writes out/navigate.json, out/navigate.png (views and maps) and
out/navigate.mp4.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from demo.episodes import Row, described, write_summary
from demo.grasp.run import Eye, add_arguments, meet, start_node
from demo.navigate.simulator import BASE, CAMERA, MAP
from demo.pictures import write_film, write_strip
from demo.simulator_process import SimulatorError, SimulatorProcess
from examples.ask import Answer, GoalAsker
from examples.go_to import Base, Seeker, Trip
from groma_ros.camera_geometry import moved
from groma_ros.client.demo.processes import Child, dds_environment
from groma_ros.client.groma_client import GromaClient
from groma_ros.geometry3d.box3d import DepthError, place

WRONG = "false_arrival"
WITHIN, CLOSE = 1.0, 0.5


class BoxFinder:
    """Answers with a box of the truth, and depth, of what is in view: the ceiling, or with a random thing
    the floor."""

    def __init__(self, eye: Eye, simulator: SimulatorProcess, targets: list[int], choice: int | None) -> None:
        self._eye, self._simulator, self._targets, self._choice = eye, simulator, targets, choice

    def ask(self, goal: str) -> Answer:
        seen = self._eye.images
        while self._eye.images < seen + 2:
            rclpy.spin_once(self._eye, timeout_sec=0.1)
        told = self._simulator.request("boxes")
        wanted = self._targets if self._choice is None else [self._choice]
        boxes = [told["boxes"][index] for index in wanted if told["boxes"][index]]
        if not boxes:
            return Answer(goal, "absent", "It is not in view.")
        try:
            there = place(self._eye.frame(), boxes[0]).box
        except DepthError as error:
            return Answer(goal, "present", str(error), 1.0)
        x, y, turn = told["pose"]
        shift, rotation = told_camera(x, y, turn)
        box = moved(there, rotation, shift)
        return Answer(
            goal, "present", "", 1.0, 1.0, MAP, np.array(box.centre), size=box.size, box=tuple(boxes[0])
        )


def told_camera(x: float, y: float, turn: float) -> tuple[Any, Any]:
    """Where the base's camera is in the map: position and 3x3 rotation of its optical frame."""
    from groma_ros.simulation.miniworld_course import EYE_HEIGHT, EYE_PITCH

    level = np.cos(EYE_PITCH)
    forward = np.array([np.cos(turn) * level, np.sin(turn) * level, np.sin(EYE_PITCH)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    return np.array([x, y, EYE_HEIGHT]), np.stack([right, np.cross(forward, right), forward], 1)


def judge(seed: int, episode: dict[str, Any], trip: Trip, score: dict[str, Any]) -> Row:
    """The row of an episode: by where the simulator says the base stands, if the bridge says that it has
    arrived."""
    goal = episode["goal"]
    present, arrived = bool(goal["targets"]), not trip.cause
    near = present and score["distance"] <= WITHIN and score["in_view"]
    success = near and arrived if present else not arrived
    wrong = arrived and not near
    if success:
        outcome, cause = "success", ""
    elif not present:
        outcome, cause = "false arrival", "absent goal answered"
    elif wrong:
        outcome = "false arrival"
        cause = "wrong thing" if score["distance"] > 1.5 * WITHIN else "stopped too far away or turned away"
    else:
        outcome, cause = "not arrived", trip.cause
    longest = max(score["path"], score["shortest"], 0.1)
    figures = {
        "distance": score["distance"],
        "within_half_a_metre": float(success and present and score["distance"] <= CLOSE),
        "spl": round(
            score["shortest"] / longest
            if success and present and score["shortest"]
            else float(success and present),
            3,
        ),
        "path": score["path"],
        "shortest": score["shortest"],
        "in_view_at_start": float(episode["in_view"]),
        "bumps": score["bumps"],
        "seconds": score["seconds"],
    }
    return Row(
        seed, goal["text"], goal["kind"], present, outcome, cause, wrong, arrived and not present, figures
    )


class Session:
    """Simulator, frames, driver and, for the finder `node`, the node, until closed."""

    def __init__(self, out: Path, finder: str, model: str, stack: ExitStack) -> None:
        os.environ.update({"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), **dds_environment()})
        domain = {name: os.environ[name] for name in ("ROS_DOMAIN_ID", *dds_environment())}
        logs = out / "logs"
        module = "demo.navigate.simulator"
        self.simulator = stack.enter_context(SimulatorProcess(module, logs / "simulator.log", domain))
        frames = Child("demo.robot_frames", [CAMERA], logs / "frames.log", {})
        driver = Child("demo.navigate.drive", [], logs / "drive.log", {})
        self.children = [stack.enter_context(frames), stack.enter_context(driver)]
        if finder == "node":
            self.children.append(stack.enter_context(start_node(logs / "node.log", MAP, "front", model)))
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        self.eye = Eye()
        stack.callback(self.eye.destroy_node)
        self.base = Base(self.eye)
        self.asker = GoalAsker(stack.enter_context(GromaClient()))
        self.finder = finder

    def meet(self) -> None:
        """Wait for the node. Raises NodeLost."""
        meet(self.asker if self.finder == "node" else None, self.children)

    def run(self, seed: int, film: str) -> tuple[Row, Trip, Any]:
        """One episode: its row, what the bridge said, and the picture it ended with."""
        episode = self.simulator.request("reset", seed=seed)
        self.eye.wait_after(episode["time"])
        ask: Callable[[str], Answer] = self.asker.ask
        if self.finder != "node":
            count = len(episode["objects"])
            choice = None if self.finder == "true" else int(np.random.default_rng([seed, 29]).integers(count))
            ask = BoxFinder(self.eye, self.simulator, episode["goal"]["targets"], choice).ask
        trip = Seeker(self.base, ask).go_to(episode["goal"]["text"])
        picture = self.eye.rgb.copy()  # the last question was about it
        score = self.simulator.request("finish", film=film)
        return judge(seed, episode, trip, score), trip, picture


def shares(rows: list[Row]) -> dict[str, Any]:
    """Further figures over the goals that are there: within half a metre, and SPL."""
    present = [row for row in rows if row.present]
    count = max(1, len(present))
    hidden = [row for row in present if not row.figures["in_view_at_start"]]
    return {
        "within_half_a_metre": int(sum(row.figures["within_half_a_metre"] for row in present)),
        "spl": round(sum(row.figures["spl"] for row in present) / count, 3),
        "not_in_view_at_start": [sum(row.outcome == "success" for row in hidden), len(hidden)],
    }


def main() -> int:
    """Run the episodes and write what they came to."""
    parser = argparse.ArgumentParser(prog="python -m demo.navigate.run", description=__doc__)
    add_arguments(parser, "navigate")
    args = parser.parse_args()
    name = "navigate" if args.finder == "node" else f"navigate-{args.finder}"
    rows: list[Row] = []
    told: list[tuple[Any, list[Path], Row, Any]] = []
    with ExitStack() as stack:
        try:
            session = Session(args.out, args.finder, args.model, stack)
            print(f"The simulator, the driver ({BASE}) and the node start.", flush=True)
            session.meet()
            for index in range(args.seeds):
                seed = args.first_seed + index
                film = args.out / "film" / f"{name}-{seed}" if index < args.film else None
                row, trip, picture = session.run(seed, str(film.resolve()) if film else "")
                rows.append(row)
                why = f" ({row.cause}): {trip.sentence}" if row.cause else ""
                print(f"{seed}: {row.goal!r}: {row.outcome}{why} {row.figures['distance']} m", flush=True)
                if film is not None:
                    told.append((picture, [*sorted(film.glob("*.jpg")), film / "map.png"], row, trip))
                write_summary(args.out / f"{name}.json", rows, WRONG, finder=args.finder, **shares(rows))
        except (SimulatorError, RuntimeError, TimeoutError, OSError) as error:
            print(f"demo-navigate: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo-navigate: interrupted; what was done is written.", file=sys.stderr)
    if not rows:
        return 1
    write_strip(args.out / f"{name}.png", told)
    write_film(args.out / f"{name}.mp4", told)
    document = write_summary(args.out / f"{name}.json", rows, WRONG, finder=args.finder, **shares(rows))
    print(described(document, WRONG))
    print(
        f"  within half a metre   {document['within_half_a_metre']} of {document['present']}, SPL "
        f"{document['spl']}"
    )
    print(f"Written: {args.out / name}.json, .png and .mp4")
    return 0


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
