"""Grasping episodes: simulator, node and bridge over ROS topics, scored by the simulator.

`make demo-grasp SEEDS=N FIRST_SEED=S` writes out/grasp.json, out/grasp.png (a strip of pictures) and
out/grasp.mp4.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from demo.episodes import Row
from demo.grasp.simulator import BASE, CAMERA
from demo.session import CameraListener, Demonstration, Session, Setup
from examples.ask import Answer, Outcome
from examples.pick import Arm, Picker
from groma_ros.camera_geometry import moved
from groma_ros.geometry3d.approach_pose import target_pose
from groma_ros.geometry3d.box3d import DepthError, place

_HAND_STILL = 0.02  # length of the hand's path in metres that counts as no motion


class BoxFinder:
    """Answers with a true box and depth (upper bound), or with a random object (lower bound)."""

    def __init__(self, camera: CameraListener, episode: dict[str, Any], choice: int | None) -> None:
        self._camera, self._episode, self._choice = camera, episode, choice

    def ask(self, goal: str) -> Answer:
        if self._choice is None:
            return Answer(goal, "absent", "The goal means nothing that is there.")
        item = self._episode["objects"][self._choice]
        camera = self._episode["camera"]
        try:
            box = place(self._camera.frame(), item["box"]).box
        except DepthError as error:
            return Answer(goal, "present", str(error), 1.0)
        shift, rotation = np.array(camera["position"]), np.array(camera["rotation"])
        there = moved(box, rotation, shift)
        pose = target_pose(there, "above", 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
        position, size = np.array(pose.position), there.size
        return Answer(
            goal, "present", "", 1.0, 1.0, BASE, position, pose.quaternion, size, tuple(item["box"])
        )


def choose(finder: str, seed: int, episode: dict[str, Any]) -> int | None:
    """The object chosen by the upper or the lower bound; None for an absent goal."""
    targets = episode["goal"]["targets"]
    if finder == "true":
        return targets[0] if targets else None
    return int(np.random.default_rng([seed, 23]).integers(len(episode["objects"])))


def judge(seed: int, episode: dict[str, Any], pick: Outcome, score: dict[str, Any]) -> Row:
    """Row of an episode, judged by the objects the simulator reports as lifted, not by the bridge's own
    outcome."""
    goal, lifted = episode["goal"], score["lifted"]
    targets = goal["targets"]
    wrong = any(index not in targets for index in lifted)
    right = any(index in targets for index in lifted)
    moved = not targets and score["hand_path"] > _HAND_STILL
    if wrong:
        outcome, cause = "wrong lift", "wrong object" if targets else "absent goal answered"
    elif targets:
        outcome = "success" if right else "nothing lifted"
        cause = ""
    else:
        outcome = "motion" if moved else "success"
        cause = "absent goal answered" if moved else ""
    aimed = _aimed_at(episode, pick)
    if outcome == "nothing lifted":
        cause = pick.cause or "not held for two seconds"
        if pick.answer is not None and pick.answer.box is not None and aimed not in targets:
            cause = "wrong object" if aimed >= 0 else "box fits no object"
    present = pick.answer.present if pick.answer is not None else -1.0
    margin = pick.answer.margin if pick.answer is not None else -1.0
    figures = {
        "presence": round(present, 3),
        "margin": round(margin, 3),
        "seconds": round(score["seconds"], 1),
        "aimed_at": aimed,
    }
    return Row(seed, goal["text"], goal["kind"], bool(targets), outcome, cause, wrong, moved, figures)


def _aimed_at(episode: dict[str, Any], pick: Outcome) -> int:
    """The object whose box matches the answered one best; -1 if none does."""
    if pick.answer is None or pick.answer.box is None:
        return -1
    fits = [_iou(pick.answer.box, item["box"]) for item in episode["objects"]]
    return int(np.argmax(fits)) if max(fits) >= 0.5 else -1


def _iou(a: Any, b: Any) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = wide * high
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


class GraspDemonstration(Demonstration):
    """The Panda picks up the objects named by the episodes' goals."""

    setup = Setup("grasp", "demo.grasp.simulator", CAMERA, BASE, "above")
    wrong = "wrong_lift"

    def open(self, session: Session) -> None:
        """Connect to the arm."""
        self._arm = Arm(session.camera, BASE)

    def episode(
        self, session: Session, seed: int, episode: dict[str, Any], film: str
    ) -> tuple[Row, Outcome, Any]:
        """Run one episode."""
        picture = session.camera.rgb.copy()
        ask = session.ask(
            lambda: BoxFinder(session.camera, episode, choose(session.finder, seed, episode)).ask
        )
        pick = Picker(self._arm, ask).pick(episode["goal"]["text"])
        score = session.simulator.request("finish", film=film)
        return judge(seed, episode, pick, score), pick, picture


if __name__ == "__main__":
    sys.exit(GraspDemonstration().main(__doc__))
