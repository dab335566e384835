"""Navigation episodes: simulator, node, driver and bridge over ROS topics, scored by the simulator.

`make demo-navigate SEEDS=N FIRST_SEED=S` writes out/navigate.json, out/navigate.png (views and maps) and
out/navigate.mp4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from demo.episodes import Row
from demo.navigate.simulator import CAMERA, MAP
from demo.session import CameraListener, Demonstration, Session, Setup
from demo.simulator_process import SimulatorProcess
from examples.ask import Answer, Outcome
from examples.go_to import SEARCH_SECONDS, Base, Seeker
from examples.goal_words import parts
from groma_ros.camera_geometry import moved
from groma_ros.geometry3d.box3d import DepthError, place
from groma_ros.simulation.colours import COLOURS

WITHIN, CLOSE = 1.0, 0.5


class BoxFinder:
    """Answers an episode's goal, or the object in it, with a true box and depth of a target in view (upper
    bound), or with those of a random object (lower bound). What that object is next to is always answered
    truly.

    goal: text; targets: indices into `names`, the names of all objects; choice: the random object's index.
    """

    def __init__(
        self,
        camera: CameraListener,
        simulator: SimulatorProcess,
        goal: str,
        targets: list[int],
        names: list[str],
        choice: int | None,
    ) -> None:
        self._camera, self._simulator = camera, simulator
        wanted = targets if choice is None else [choice]
        self.wanted = {goal: wanted}
        """Indices of the objects that each goal means."""
        if (found := parts(goal)) is not None:
            thing, neighbour = found
            name = neighbour.removeprefix("the ")
            beside = [index for index, other in enumerate(names) if name in (other, _kind(other))]
            self.wanted |= {thing: wanted, neighbour: beside}

    def ask(self, goal: str) -> Answer:
        """Answer one of these goals; any other is absent."""
        seen = self._camera.images
        self._camera.wait_until(lambda: self._camera.images >= seen + 2)
        told = self._simulator.request("boxes")
        boxes = [told["boxes"][index] for index in self.wanted.get(goal, []) if told["boxes"][index]]
        if not boxes:
            return Answer(goal, "absent", "It is not in view.")
        try:
            there = place(self._camera.frame(), boxes[0]).box
        except DepthError as error:
            return Answer(goal, "present", str(error), 1.0)
        x, y, turn = told["pose"]
        shift, rotation = told_camera(x, y, turn)
        box = moved(there, rotation, shift)
        return Answer(
            goal, "present", "", 1.0, 1.0, MAP, np.array(box.centre), size=box.size, box=tuple(boxes[0])
        )


def _kind(name: str) -> str:
    """The name of an object without its colour."""
    first, _, rest = name.partition(" ")
    return rest if first in COLOURS else name


def told_camera(x: float, y: float, turn: float) -> tuple[Any, Any]:
    """Pose of the base's camera in the map: position and 3x3 rotation of its optical frame."""
    from groma_ros.simulation.miniworld_course import EYE_HEIGHT, EYE_PITCH

    level = np.cos(EYE_PITCH)
    forward = np.array([np.cos(turn) * level, np.sin(turn) * level, np.sin(EYE_PITCH)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    return np.array([x, y, EYE_HEIGHT]), np.stack([right, np.cross(forward, right), forward], 1)


def judge(seed: int, episode: dict[str, Any], trip: Outcome, score: dict[str, Any]) -> Row:
    """Row of an episode, judged by the base's position in the simulator if the bridge reports arrival."""
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


def shares(rows: list[Row]) -> dict[str, Any]:
    """Further figures over the goals that are present: share within half a metre, and SPL."""
    present = [row for row in rows if row.present]
    count = max(1, len(present))
    hidden = [row for row in present if row.figures.get("in_view_at_start") == 0]
    return {
        "within_half_a_metre": int(sum(row.figures.get("within_half_a_metre", 0) for row in present)),
        "spl": round(sum(row.figures.get("spl", 0) for row in present) / count, 3),
        "not_in_view_at_start": [sum(row.outcome == "success" for row in hidden), len(hidden)],
    }


class NavigateDemonstration(Demonstration):
    """The base drives to the objects named by the episodes' goals."""

    setup = Setup(
        "navigate", "demo.navigate.simulator", CAMERA, MAP, "front", (("demo.navigate.drive", "drive"),)
    )
    wrong = "false_arrival"

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        """The common options, and the time limit of a search."""
        parser = super().parser(description)
        help_ = f"time limit of a search in seconds of the base's clock (default {SEARCH_SECONDS:.0f})"
        parser.add_argument("--search-seconds", type=float, default=SEARCH_SECONDS, help=help_)
        return parser

    def open(self, session: Session) -> None:
        """Connect to the base."""
        self._base = Base(session.camera)

    def episode(
        self, session: Session, seed: int, episode: dict[str, Any], film: str
    ) -> tuple[Row, Outcome, Any]:
        """Run one episode."""
        ask = session.ask(lambda: self._finder(session, seed, episode).ask)
        trip = Seeker(self._base, ask, self.args.search_seconds).go_to(episode["goal"]["text"])
        picture = session.camera.rgb.copy()  # the last question was about it
        score = session.simulator.request("finish", film=film)
        return judge(seed, episode, trip, score), trip, picture

    def _finder(self, session: Session, seed: int, episode: dict[str, Any]) -> BoxFinder:
        names = [item["name"] for item in episode["objects"]]
        random = np.random.default_rng([seed, 29]).integers(len(names))
        choice = None if session.finder == "true" else int(random)
        goal = episode["goal"]
        return BoxFinder(session.camera, session.simulator, goal["text"], goal["targets"], names, choice)

    def pictures(self, film: Path) -> list[Path]:
        """The pictures of an episode, and the map with the path."""
        return [*super().pictures(film), film / "map.png"]

    def figures(self, rows: list[Row]) -> dict[str, Any]:
        """Further entries of the JSON file."""
        return shares(rows)

    def line(self, row: Row, outcome: Outcome) -> str:
        """The line that is printed after an episode."""
        return f"{super().line(row, outcome)} {row.figures.get('distance', -1.0)} m"

    def closing(self, document: dict[str, Any]) -> list[str]:
        """Further lines of the printed summary."""
        return [
            f"  within half a metre   {document['within_half_a_metre']} of {document['present']}, SPL "
            f"{document['spl']}"
        ]


if __name__ == "__main__":
    sys.exit(NavigateDemonstration().main(__doc__))
