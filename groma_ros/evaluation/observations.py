"""Raw answers of a model to goals with known truth, before calibration, so that any calibration can be
evaluated on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.scenes import HEIGHT, WIDTH, TrueScene, is_hard
from groma_ros.evaluation.workers import EvaluationPlan, ModelChoice, Record, run_evaluation
from groma_ros.grounding.calibration import PROBE, SIGNALS, Calibration, sigmoid
from groma_ros.grounding.decoding import RegionAnswer
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.matching import exact_set, match_boxes
from groma_ros.simulation.goal_generator import SceneGoal, draw_goals
from groma_ros.simulation.scene_records import SceneRecord
from groma_ros.simulation.scenes import SceneRenderer
from groma_ros.simulation.worlds import words_of
from groma_ros.types import Frame, Goal

_GOALS = 11  # independent of the random numbers with which `groma scenes` draws its goals


@dataclass(frozen=True)
class SceneSeed:
    """A scene to render."""

    seed: int
    """Seed of the renderer."""
    world: str
    """Name of the world it is set in, or "mixed"."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Uncalibrated answers to G goals."""

    scene: NDArray[Any]
    """int (G,): index of the goal's scene."""
    source: NDArray[Any]
    """int (G,): index of the data that the scene is from."""
    kinds: list[str]
    """Kind of each goal."""
    present: NDArray[Any]
    """bool (G,): whether the goal truly has a target."""
    hard: NDArray[Any]
    """bool (G,): an absent goal whose colour and noun both occur in the scene, but not on one object."""
    signals: list[dict[str, float]]
    """Signals of each answer, as in `RegionAnswer.signals`."""
    picked: list[list[tuple[float, bool]]]
    """Boxes of each answer in the order chosen, as (probability, whether it is a target)."""
    exact: NDArray[Any]
    """bool (G,): whether the boxes are exactly the targets."""
    backend: str
    """Backend that ran the model."""
    precision: str
    """Precision it ran in."""

    def presence(self, calibration: Calibration) -> NDArray[Any]:
        """Presence of every goal under a calibration, float64 (G,)."""
        return np.array(
            [calibration.presence(float(sigmoid(item["stop"])), item) for item in self.signals], np.float64
        )

    def boxes(self, stands: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probability (float64) and correctness (bool) of every box of the goals selected by `stands`, bool
        (G,)."""
        pairs = [pair for keep, line in zip(stands, self.picked, strict=True) if keep for pair in line]
        return np.array([chance for chance, _ in pairs], np.float64), np.array(
            [right for _, right in pairs], bool
        )

    def box_source(self, stands: NDArray[Any]) -> NDArray[Any]:
        """Index of the data that each box of `boxes` is from, int (B,)."""
        counts = [len(line) if keep else 0 for keep, line in zip(stands, self.picked, strict=True)]
        return np.repeat(self.source, counts)

    def part(self, keep: NDArray[Any]) -> Observations:
        """Select goals by a mask, bool (G,)."""
        chosen = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            scene=self.scene[chosen],
            source=self.source[chosen],
            kinds=[self.kinds[index] for index in chosen],
            present=self.present[chosen],
            hard=self.hard[chosen],
            signals=[self.signals[index] for index in chosen],
            picked=[self.picked[index] for index in chosen],
            exact=self.exact[chosen],
        )


def neutral(choice: ModelChoice, none_ignored: bool = False) -> Calibration:
    """Return the model's calibration without its fitted parameters, for collecting observations.

    All signals the model can give are computed if presence is read from signals, which is the case for a
    model that was not trained to answer "nothing fits"; with `none_ignored` they are computed for any model.
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
    sources: Sequence[int] | None = None,
) -> Observations:
    """Ground the goals of every scene and collect the raw answers.

    scenes: scenes to render (one goal of every kind each), records of a data set folder, or scenes in memory.
    choice, plan, settings: see `workers.run_evaluation`. sources: index of the data that each scene is from,
    if there is more than one. Raises ValueError if there are no goals.
    """
    raw = dataclasses.replace(choice, min_presence=0.0, calibration=neutral(choice, none_ignored))
    records = run_evaluation(observe_scene, scenes, "scene", raw, plan, settings)
    return gathered(records, sources)


def gathered(records: Sequence[Record], sources: Sequence[int] | None = None) -> Observations:
    """Combine the records of `observe_scene`. Raises ValueError if there are no goals."""
    goals = [(number, goal) for number, record in enumerate(records) for goal in record["goals"]]
    if not goals:
        raise ValueError(
            "The scenes hold no goals; write them with groma scenes, or name data whose annotations have "
            "goals."
        )

    def column(name: str) -> NDArray[Any]:
        return np.array([goal[name] for _, goal in goals])

    return Observations(
        np.array([number for number, _ in goals]),
        np.array([sources[number] if sources else 0 for number, _ in goals]),
        [goal["kind"] for _, goal in goals],
        column("present"),
        column("hard"),
        [goal["signals"] for _, goal in goals],
        [[(float(chance), bool(right)) for chance, right in goal["picked"]] for _, goal in goals],
        column("exact"),
        *records[0]["runtime"],
    )


def observe_scene(grounder: Grounder, item: SceneSeed | SceneRecord | TrueScene) -> Record:
    """Ground the goals of one scene. The record holds `goals`, with the fields of `Observations` for each,
    and `runtime` (backend, precision)."""
    truth = _truth(item)
    scene = grounder.perceive(Frame(truth.rgb))
    answers = grounder.answers(scene, [Goal(goal.text) for goal in truth.goals])
    goals = [_goal(scene.boxes, truth, *pair) for pair in zip(truth.goals, answers, strict=True)]
    runtime = grounder.runtime
    return {"goals": goals, "runtime": [runtime.backend, runtime.precision] if runtime else ["", ""]}


def _goal(boxes: NDArray[Any], truth: TrueScene, goal: SceneGoal, answer: RegionAnswer) -> Record:
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
    """Renderer of a world, created once per process."""
    return SceneRenderer(WIDTH, HEIGHT, world=world)


def _truth(item: SceneSeed | SceneRecord | TrueScene) -> TrueScene:
    if isinstance(item, TrueScene):
        return item
    if isinstance(item, SceneRecord):
        return TrueScene(read_annotated(item.image), item.objects, item.goals)
    sample = _renderer(item.world).render(item.seed)
    rng = np.random.default_rng([item.seed, _GOALS])
    return TrueScene(sample.rgb, sample.objects, tuple(draw_goals(sample, rng, words=words_of(item.world))))
