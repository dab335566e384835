"""What a model says of goals whose truth is known, before any calibration, so that every calibration can be
tried on it afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from groma_ros.evaluation.dataset_files import read_rgb
from groma_ros.evaluation.scenes import HEIGHT, WIDTH, TrueScene, is_hard
from groma_ros.evaluation.workers import EvaluationPlan, ModelChoice, Record, run_evaluation
from groma_ros.grounding.calibration import PROBE, SIGNALS, Calibration, sigmoid
from groma_ros.grounding.decoding import RegionAnswer
from groma_ros.grounding.grounder import Grounder
from groma_ros.matching import exact_set, match_boxes
from groma_ros.simulation.dataset import SceneRecord
from groma_ros.simulation.goal_generator import SceneGoal, draw_goals
from groma_ros.simulation.scenes import SceneRenderer
from groma_ros.types import Frame, Goal

_GOALS = 11  # apart from the random numbers that `groma scenes` draws its goals with


@dataclass(frozen=True)
class SceneSeed:
    """A scene to render: the renderer's seed, and the world it is set in, or "mixed"."""

    seed: int
    world: str


@dataclass(frozen=True, eq=False)
class Observations:
    """G goals. scene: int G, the scene of each; kinds: of each; present: bool G, whether anything truly fits;
    hard: bool G, an absent goal whose words are in the scene, but not on one object; signals: of each answer,
    as `RegionAnswer`'s; picked: of each answer the boxes in the order chosen, (the chance of each, whether it
    is a target); exact: bool G, the boxes are exactly the targets; backend, precision: what ran."""

    scene: np.ndarray
    kinds: list[str]
    present: np.ndarray
    hard: np.ndarray
    signals: list[dict[str, float]]
    picked: list[list[tuple[float, bool]]]
    exact: np.ndarray
    backend: str
    precision: str

    def presence(self, calibration: Calibration) -> np.ndarray:
        """The presence of every goal by a calibration, float64 G."""
        return np.array(
            [calibration.presence(float(sigmoid(item["stop"])), item) for item in self.signals], np.float64
        )

    def boxes(self, stands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(chance, whether it is a target) of the boxes of the goals that stand (bool G)."""
        pairs = [pair for keep, line in zip(stands, self.picked, strict=True) if keep for pair in line]
        return np.array([chance for chance, _ in pairs], np.float64), np.array(
            [right for _, right in pairs], bool
        )

    def part(self, keep: np.ndarray) -> Observations:
        """Only the goals of a mask (bool G)."""
        chosen = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            scene=self.scene[chosen],
            kinds=[self.kinds[index] for index in chosen],
            present=self.present[chosen],
            hard=self.hard[chosen],
            signals=[self.signals[index] for index in chosen],
            picked=[self.picked[index] for index in chosen],
            exact=self.exact[chosen],
        )


def neutral(choice: ModelChoice, none_ignored: bool = False) -> Calibration:
    """The calibration to observe with: the model's own without its fitted lines.

    Every signal it can give is computed where presence is read from signals, which it is for a model that was
    never taught to answer "nothing fits", and with none_ignored for any.
    """
    bundle = choice.bundle()
    own = Calibration.from_manifest(bundle.calibration)
    taught = own.answers_none and not none_ignored
    asked = (
        ()
        if taught
        else tuple(name for name in SIGNALS if name != PROBE or PROBE in bundle.prompt.get("queries", {}))
    )
    return Calibration(
        own.temperature, answers_none=taught, signals=dict.fromkeys(asked, 0.0), null_goals=own.null_goals
    )


def observe(
    choice: ModelChoice,
    scenes: Sequence[SceneSeed | SceneRecord | TrueScene],
    plan: EvaluationPlan,
    settings: Record,
    none_ignored: bool = False,
) -> Observations:
    """Ask the goals of every scene. scenes: those to render, whose goals are one of every kind, records of a
    folder, or scenes as they are; choice, plan, settings: see `workers.run`. ValueError where there is no
    goal at all."""
    raw = dataclasses.replace(choice, min_presence=0.0, calibration=neutral(choice, none_ignored))
    records = run_evaluation(observe_scene, scenes, "scene", raw, plan, settings)
    return gathered(records)


def gathered(records: Sequence[Record]) -> Observations:
    """The observations of the records that `observe_scene` made. ValueError where there is no goal at all."""
    goals = [(number, goal) for number, record in enumerate(records) for goal in record["goals"]]
    if not goals:
        raise ValueError(
            "The scenes hold no goals; write them with groma scenes, or name data whose annotations have "
            "goals."
        )

    def column(name: str) -> np.ndarray:
        return np.array([goal[name] for _, goal in goals])

    return Observations(
        np.array([number for number, _ in goals]),
        [goal["kind"] for _, goal in goals],
        column("present"),
        column("hard"),
        [goal["signals"] for _, goal in goals],
        [[(float(chance), bool(right)) for chance, right in goal["picked"]] for _, goal in goals],
        column("exact"),
        *records[0]["runtime"],
    )


def observe_scene(grounder: Grounder, item: SceneSeed | SceneRecord | TrueScene) -> Record:
    """The record of one scene: `goals`, for each what `Observations` says of it, and the `runtime`, backend
    and precision."""
    truth = _truth(item)
    scene = grounder.perceive(Frame(truth.rgb))
    answers = grounder.answers(scene, [Goal(goal.text) for goal in truth.goals])
    goals = [_goal(scene.boxes, truth, *pair) for pair in zip(truth.goals, answers, strict=True)]
    runtime = grounder.runtime
    return {"goals": goals, "runtime": [runtime.backend, runtime.precision] if runtime else ["", ""]}


def _goal(boxes: np.ndarray, truth: TrueScene, goal: SceneGoal, answer: RegionAnswer) -> Record:
    targets = truth.boxes[list(goal.targets)]
    found = boxes[list(answer.regions)]
    right = match_boxes(found, targets) >= 0
    return {
        "text": goal.text,
        "kind": goal.kind,
        "present": bool(goal.targets),
        "hard": not goal.targets and is_hard(goal, truth.objects),
        "signals": dict(answer.signals),
        "picked": [[score, bool(hit)] for score, hit in zip(answer.scores, right, strict=True)],
        "exact": exact_set(found, targets),
    }


@cache
def _renderer(world: str) -> SceneRenderer:
    """Kept by each process, which renders its share of the scenes."""
    return SceneRenderer(WIDTH, HEIGHT, world=world)


def _truth(item: SceneSeed | SceneRecord | TrueScene) -> TrueScene:
    if isinstance(item, TrueScene):
        return item
    if isinstance(item, SceneRecord):
        return TrueScene(read_rgb(item.image), item.objects, item.goals)
    sample = _renderer(item.world).render(item.seed)
    return TrueScene(
        sample.rgb, sample.objects, tuple(draw_goals(sample, np.random.default_rng([item.seed, _GOALS])))
    )
