"""Run the demonstration: node and player in separate processes; show and store the answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from rich.console import Console, Group
from rich.live import Live
from sensor_msgs.msg import CompressedImage

from groma_ros.client.demo.bag import Bag, read_bag, write_bag
from groma_ros.client.demo.listener import Listener
from groma_ros.client.demo.processes import Child, dds_environment, unused_domain
from groma_ros.client.demo.report import (
    Counts,
    DemoTruth,
    accuracy,
    answers_table,
    correct_by_goal,
    write_figures,
    write_picture,
)
from groma_ros.grounding.goals import read_goals
from groma_ros.io.images import compressed_to_rgb
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.types import Goal

START_SECONDS = 180.0
DRAIN_SECONDS = 120.0
COMPRESSED = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run."""

    bag: Path
    goals: Path
    truth: Path
    out: Path
    model: str = ""
    """Folder of a bundle; "" for the shipped model."""
    rate: float = 1.0
    """1 plays the bag at its recorded speed."""


def run(inputs: Inputs, console: Console) -> None:
    """Run the demonstration and write demo.json, demo.png and demo.mcap.

    Raises ValueError, TimeoutError, OSError or RuntimeError with a sentence if something is missing, wrong or
    too slow. The child processes have ended when it returns or raises.
    """
    bag, goals, truth = read_bag(inputs.bag), read_goals(inputs.goals), DemoTruth.load(inputs.truth)
    cameras = bag.topics_of(COMPRESSED)
    if not cameras:
        raise ValueError(f"The bag {inputs.bag} has no topic of type {COMPRESSED}.")
    inputs.out.mkdir(parents=True, exist_ok=True)
    # A domain of its own, so that messages of other robots or of a second demonstration do not interfere.
    os.environ.update({"ROS_DOMAIN_ID": str(unused_domain()), **dds_environment()})
    listener = Listener()
    try:
        with _start_node(inputs, cameras[0]) as node:
            counts = _answer_bag(inputs, cameras[0], goals, node, listener, console)
    finally:
        listener.close()
    write_figures(inputs.out / "demo.json", listener.answers, truth, counts)
    write_bag(
        inputs.out / "demo.mcap", [*bag.topics.values(), *listener.topics], [*bag.records, *listener.records]
    )
    write_picture(
        inputs.out / "demo.png", _pictures(bag, cameras[0], set(listener.answers)), listener.answers
    )
    _show_result(inputs, goals, listener, truth, counts, console)


def _start_node(inputs: Inputs, camera: str) -> Child:
    parameters = {"model": inputs.model, "image_transport": "compressed"}
    settings = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value!r}")]
    return Child(
        "groma_ros.node.main",
        ["--ros-args", *settings, "-r", f"image/compressed:={camera}"],
        inputs.out / "node.log",
        {},
    )


def _answer_bag(
    inputs: Inputs, camera: str, goals: Sequence[Goal], node: Child, listener: Listener, console: Console
) -> Counts:
    console.print("The node loads its model.")
    listener.until(
        lambda: _alive(node) and listener.connected, START_SECONDS, "The node did not become active"
    )
    listener.set_goals(goals, START_SECONDS)
    arguments = [
        str(inputs.bag),
        "--await-topic",
        camera,
        "--rate",
        str(inputs.rate),
        "--timeout",
        str(START_SECONDS),
    ]
    log = inputs.out / "player.log"
    with (
        Child("groma_ros.client.demo.player", arguments, log, {}) as player,
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        start = time.monotonic()
        while player.running or not listener.settled():
            _alive(node)
            if time.monotonic() - max(start, listener.last_answer) > DRAIN_SECONDS:
                raise TimeoutError(
                    f"No answer came for {DRAIN_SECONDS:.0f} s; the node last said: {node.last_line()}"
                )
            listener.spin(0.2)
            live.update(_live_table(goals, listener), refresh=True)
        if player.wait(1.0):
            raise RuntimeError(f"The player ended: {player.last_line()}")
        timing = json.loads(player.last_line())
    seconds = round(listener.last_answer - timing["started"], 3)
    sent = timing["published"][camera]
    if not listener.answers:
        raise RuntimeError(f"Of {sent} frames none was answered; the node last said: {node.last_line()}")
    console.print(f"{sent} frames were played, {listener.count('received')} reached the node.")
    return Counts(listener.count("received"), listener.answered, listener.count("dropped"), seconds)


def _alive(node: Child) -> bool:
    if not node.running:
        raise RuntimeError(f"The node ended: {node.last_line()}")
    return True


def _live_table(goals: Sequence[Goal], listener: Listener) -> Group:
    newest = listener.answers[max(listener.answers)] if listener.answers else []
    return answers_table(goals, newest, {}, _footer(listener))


def _footer(listener: Listener) -> str:
    answers = f"{listener.answered} answered ({listener.count('carried')} of them by motion)"
    counts = f"{listener.count('received')} received, {answers}, {listener.count('dropped')} dropped"
    stages = ", ".join(
        f"{key[10:]} {value} ms" for key, value in listener.counts.items() if key.startswith("median ms ")
    )
    return f"frames: {counts}\nmedian latency: {stages or 'none yet'}"


def _pictures(bag: Bag, camera: str, stamps: set[int]) -> dict[int, NDArray[Any]]:
    messages = (
        deserialize_message(item.data, CompressedImage) for item in bag.records if item.topic == camera
    )
    return {
        stamp: compressed_to_rgb(message.data, message.format)
        for message in messages
        if (stamp := to_nanoseconds(message.header.stamp)) in stamps
    }


def _show_result(
    inputs: Inputs,
    goals: Sequence[Goal],
    listener: Listener,
    truth: DemoTruth,
    counts: Counts,
    console: Console,
) -> None:
    newest = listener.answers[max(listener.answers)]
    rate = counts.answered / counts.seconds if counts.seconds > 0 else 0.0
    console.print(answers_table(goals, newest, correct_by_goal(listener.answers, truth), _footer(listener)))
    console.print(
        f"{rate:.1f} answers a second; accuracy {accuracy(listener.answers, truth):.3f} over all goals "
        "and answered frames."
    )
    console.print(
        f"Written: {', '.join(str(inputs.out / name) for name in ('demo.json', 'demo.png', 'demo.mcap'))}"
    )
