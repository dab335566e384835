"""Episodes of grasping: simulator, node and bridge over ROS topics, counted by the simulator.

`make demo-grasp SEEDS=N FIRST_SEED=S` writes out/grasp.json, out/grasp.png (a strip of pictures) and
out/grasp.mp4.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from demo.episodes import Row, described, write_summary
from demo.grasp.simulator import BASE, CAMERA
from demo.pictures import write_film, write_strip
from demo.simulator_process import SimulatorError, SimulatorProcess
from examples.ask import Answer, GoalAsker, NodeLost
from examples.pick import Arm, Pick, Picker
from groma_ros.camera_geometry import moved
from groma_ros.client.demo.processes import Child, dds_environment
from groma_ros.client.groma_client import GromaClient
from groma_ros.geometry3d.approach_pose import target_pose
from groma_ros.geometry3d.box3d import DepthError, place
from groma_ros.types import Frame, Intrinsics

WRONG = "wrong_lift"
FINDERS = ("node", "true", "random")
START_SECONDS = 240.0
SETTLED = 0.5  # seconds of the simulated clock from the start of an episode to the first question
_HAND_STILL = 0.02  # metres of the hand's path that are no motion


class Eye(Node):
    """Keeps the newest picture with its depth."""

    def __init__(self) -> None:
        super().__init__("grasp_demo")
        self.stamp = 0.0
        self.images = 0
        self.rgb: Any = None
        self._depth: Any = None
        self._info: CameraInfo | None = None
        self.create_subscription(Image, "camera/image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(Image, "camera/depth", self._on_depth, qos_profile_sensor_data)
        self.create_subscription(CameraInfo, "camera/camera_info", self._on_info, qos_profile_sensor_data)

    def wait_after(self, time: float) -> None:
        """Wait for pictures of a time of the simulated clock, so that none of an episode before is left."""
        while self.stamp < time + SETTLED:
            rclpy.spin_once(self, timeout_sec=0.1)

    def frame(self) -> Frame:
        """The newest picture, with its depth, metres."""
        assert self._info is not None and self.rgb is not None and self._depth is not None
        k, width, height = self._info.k, self._info.width, self._info.height
        intrinsics = Intrinsics(k[0], k[4], k[2], k[5], width, height)
        return Frame(self.rgb, 0, CAMERA, self._depth, intrinsics)

    def _on_image(self, message: Image) -> None:
        self.rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        self.stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self.images += 1

    def _on_depth(self, message: Image) -> None:
        self._depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message


class BoxFinder:
    """Answers with a box of the truth, and depth: the ceiling, or with a random object the floor."""

    def __init__(self, eye: Eye, episode: dict[str, Any], choice: int | None) -> None:
        self._eye, self._episode, self._choice = eye, episode, choice

    def ask(self, goal: str) -> Answer:
        if self._choice is None:
            return Answer(goal, "absent", "The goal means nothing that is there.")
        item = self._episode["objects"][self._choice]
        camera = self._episode["camera"]
        try:
            box = place(self._eye.frame(), item["box"]).box
        except DepthError as error:
            return Answer(goal, "present", str(error), 1.0)
        shift, rotation = np.array(camera["position"]), np.array(camera["rotation"])
        there = moved(box, rotation, shift)
        pose = target_pose(there, "above", 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
        position, size = np.array(pose.position), there.size
        return Answer(
            goal, "present", "", 1.0, 1.0, BASE, position, pose.quaternion, size, tuple(item["box"])
        )


def start_node(log: Path, frame: str, approach: str, model: str, more: dict[str, Any] | None = None) -> Child:
    """The node on the simulated camera, its poses in a fixed frame."""
    settings = {
        "model": model,
        "target_frame": frame,
        "target_approach": approach,
        "depth_wait": 0.5,
        "use_sim_time": True,
        **(more or {}),
    }
    arguments = ["--ros-args"]
    for name, value in settings.items():
        if value != "":
            said = str(value).lower() if isinstance(value, bool) else value
            arguments += ["-p", f"{name}:={said}"]
    for topic, name in (("image", "image"), ("depth", "depth"), ("camera_info", "camera_info")):
        arguments += ["-r", f"{topic}:=camera/{name}"]
    return Child("groma_ros.node.main", arguments, log, {})


def meet(asker: GoalAsker | None, children: Sequence[Child]) -> None:
    """Wait until the node is active. Raises NodeLost, or SimulatorError where one of the processes has
    ended."""
    end = time.monotonic() + START_SECONDS
    while True:
        for child in children:
            if not child.running:
                raise SimulatorError(f"{child.name} ended: {child.last_line()} (log: {child.log})")
        if asker is None:
            return
        try:
            asker.ready(3.0)
            return
        except NodeLost:
            if time.monotonic() > end:
                raise


def choose(finder: str, seed: int, episode: dict[str, Any]) -> int | None:
    """The object that the ceiling or the floor goes for; None for a goal that means nothing."""
    targets = episode["goal"]["targets"]
    if finder == "true":
        return targets[0] if targets else None
    return int(np.random.default_rng([seed, 23]).integers(len(episode["objects"])))


def judge(seed: int, episode: dict[str, Any], pick: Pick, score: dict[str, Any]) -> Row:
    """The row of an episode: by what the simulator says was lifted, not by what the bridge believes."""
    goal, lifted = episode["goal"], score["lifted"]
    targets = goal["targets"]
    wrong = any(index not in targets for index in lifted)
    right = any(index in targets for index in lifted)
    moved = not targets and score["hand_path"] > _HAND_STILL
    if wrong:
        outcome, cause = "wrong lift", "wrong object" if targets else "absent goal answered"
    elif targets:
        outcome = "success" if right else "nothing lifted"
        cause = "" if right else pick.cause or "slipped before two seconds"
    else:
        outcome = "motion" if moved else "success"
        cause = "absent goal answered" if moved else ""
    aimed = _aimed_at(episode, pick)
    if outcome == "nothing lifted":
        cause = pick.cause or "not held for two seconds"
        if pick.answer is not None and pick.answer.box is not None and aimed not in targets:
            cause = "wrong object" if aimed >= 0 else "box fits no object"
    present = pick.answer.present if pick.answer is not None else -1.0
    figures = {"presence": round(present, 3), "seconds": round(score["seconds"], 1), "aimed_at": aimed}
    return Row(seed, goal["text"], goal["kind"], bool(targets), outcome, cause, wrong, moved, figures)


def _aimed_at(episode: dict[str, Any], pick: Pick) -> int:
    """The object whose box fits the answered one best; -1 where none does."""
    if pick.answer is None or pick.answer.box is None:
        return -1
    fits = [_iou(pick.answer.box, item["box"]) for item in episode["objects"]]
    return int(np.argmax(fits)) if max(fits) >= 0.5 else -1


def _iou(a: Any, b: Any) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


class Session:
    """Simulator, frames and, for the finder `node`, the node, until closed."""

    def __init__(self, out: Path, finder: str, model: str, stack: ExitStack) -> None:
        os.environ.update({"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), **dds_environment()})
        domain = {name: os.environ[name] for name in ("ROS_DOMAIN_ID", *dds_environment())}
        logs = out / "logs"
        self.simulator = stack.enter_context(
            SimulatorProcess("demo.grasp.simulator", logs / "simulator.log", domain)
        )
        self.children = [stack.enter_context(Child("demo.robot_frames", [CAMERA], logs / "frames.log", {}))]
        if finder == "node":
            self.children.append(stack.enter_context(start_node(logs / "node.log", BASE, "above", model)))
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        self.eye = Eye()
        stack.callback(self.eye.destroy_node)
        self.arm = Arm(self.eye, BASE)
        self.asker = GoalAsker(stack.enter_context(GromaClient()))
        self.finder = finder

    def meet(self) -> None:
        """Wait for the node. Raises NodeLost."""
        meet(self.asker if self.finder == "node" else None, self.children)

    def run(self, seed: int, film: str) -> tuple[Row, dict[str, Any], Pick, Any]:
        """One episode: its row, what was asked, what the bridge said, and the picture it was asked about."""
        episode = self.simulator.request("reset", seed=seed)
        self.eye.wait_after(episode["time"])
        picture = self.eye.rgb.copy()
        ask: Callable[[str], Answer] = self.asker.ask
        if self.finder != "node":
            ask = BoxFinder(self.eye, episode, choose(self.finder, seed, episode)).ask
        pick = Picker(self.arm, ask).pick(episode["goal"]["text"])
        score = self.simulator.request("finish", film=film)
        return judge(seed, episode, pick, score), episode, pick, picture


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that both demonstrations have."""
    parser.add_argument("--seeds", type=int, default=20, help="episodes (default 20)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first (default 0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for results (default out)")
    parser.add_argument("--model", default="", help="model bundle (default: the one that ships)")
    help_ = "who finds the thing: the node, the true boxes (ceiling) or a random object (floor)"
    parser.add_argument("--finder", choices=FINDERS, default="node", help=help_)
    parser.add_argument("--film", type=int, default=6, help="episodes whose pictures are kept (default 6)")
    parser.set_defaults(name=name)


def main() -> int:
    """Run the episodes and write what they came to."""
    parser = argparse.ArgumentParser(prog="python -m demo.grasp.run", description=__doc__)
    add_arguments(parser, "grasp")
    args = parser.parse_args()
    name = "grasp" if args.finder == "node" else f"grasp-{args.finder}"
    rows: list[Row] = []
    told: list[tuple[Any, list[Any], Row, Pick]] = []
    with ExitStack() as stack:
        try:
            session = Session(args.out, args.finder, args.model, stack)
            print("The simulator and the node start.", flush=True)
            session.meet()
            for index in range(args.seeds):
                seed = args.first_seed + index
                film = args.out / "film" / f"{name}-{seed}" if index < args.film else None
                row, _, pick, picture = session.run(seed, str(film.resolve()) if film else "")
                rows.append(row)
                print(
                    f"{seed}: {row.goal!r}: "
                    f"{row.outcome}{f' ({row.cause}): ' + pick.sentence if row.cause else ''}",
                    flush=True,
                )
                if film is not None:
                    told.append((picture, sorted(film.glob("*.jpg")), row, pick))
                write_summary(args.out / f"{name}.json", rows, WRONG, finder=args.finder)
        except (SimulatorError, RuntimeError, TimeoutError, OSError) as error:
            print(f"demo-grasp: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo-grasp: interrupted; what was done is written.", file=sys.stderr)
    if not rows:
        return 1
    write_strip(args.out / f"{name}.png", told)
    write_film(args.out / f"{name}.mp4", told)
    print(described(write_summary(args.out / f"{name}.json", rows, WRONG, finder=args.finder), WRONG))
    print(f"Written: {args.out / name}.json, .png and .mp4")
    return 0


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
