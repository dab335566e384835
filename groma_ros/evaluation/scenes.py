"""`groma eval scenes`: proposals, goals and descriptions of a model on rendered scenes with known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.failure_pictures import Failure
from groma_ros.grounding.decoding import RegionAnswer
from groma_ros.grounding.grounder import Grounder
from groma_ros.matching import average_precision, exact_set, match_boxes
from groma_ros.simulation.dataset import load_dataset, scene_seeds
from groma_ros.simulation.goal_generator import GOAL_TYPES, SceneGoal, draw_goals
from groma_ros.simulation.layout import USUAL, Style
from groma_ros.simulation.scenes import SceneObject, SceneRenderer
from groma_ros.simulation.worlds import DEFAULT_WORLD, words_of, world_of
from groma_ros.types import Frame, Goal, Scene

WIDTH, HEIGHT = 640, 480
MOST_GOALS = 4
"""Goals of one kind drawn from one scene at most, to make up for earlier scenes without that kind."""


@dataclass(frozen=True, eq=False)
class TrueScene:
    """A picture with its true objects and goals."""

    rgb: NDArray[Any]
    """uint8 HxWx3."""
    objects: tuple[SceneObject, ...]
    """True objects."""
    goals: tuple[SceneGoal, ...]
    """Goals; their targets are indices into `objects`."""
    world: str = ""
    """World the scene is set in; empty if unknown."""

    @property
    def boxes(self) -> NDArray[Any]:
        """True boxes, float32 Mx4 xyxy pixels."""
        return np.array([item.box for item in self.objects], np.float32).reshape(-1, 4)


def rendered_scenes(
    seed: int,
    count: int,
    width: int = WIDTH,
    height: int = HEIGHT,
    world: str = DEFAULT_WORLD,
    style: Style = USUAL,
) -> Iterator[TrueScene]:
    """Render the scenes that `groma scenes --seed --count` writes, with equally many goals of every kind.

    If a scene has no unambiguous goal of a kind, later scenes make up for it with up to `MOST_GOALS` each.
    """
    drawn = dict.fromkeys(GOAL_TYPES, 0)
    with SceneRenderer(width, height, world=world, style=style) as renderer:
        for number, scene_seed in enumerate(scene_seeds(seed, count), 1):
            sample = renderer.render(scene_seed)
            rng = np.random.default_rng([scene_seed, 11])
            goals: list[SceneGoal] = []
            for kind in GOAL_TYPES:
                wanted = min(number - drawn[kind], MOST_GOALS)
                new = draw_goals(sample, rng, wanted, (kind,), words_of(world)) if wanted > 0 else []
                drawn[kind] += len(new)
                goals += new
            yield TrueScene(sample.rgb, sample.objects, tuple(goals), world_of(world, scene_seed))


def folder_scenes(folder: Path) -> tuple[int, Iterator[TrueScene]]:
    """Number of scenes in a folder in the format of `groma scenes`, and an iterator over them."""
    records = load_dataset(folder)

    def read() -> Iterator[TrueScene]:
        for record in records:
            image = cv2.imread(str(record.image), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise ValueError(f"The picture {record.image} is missing or cannot be decoded.")
            yield TrueScene(
                cv2.cvtColor(image, cv2.COLOR_BGR2RGB), record.objects, record.goals, record.world
            )

    return len(records), read()


@dataclass
class SceneTally:
    """Counts accumulated over scenes."""

    scenes: int = 0
    objects: int = 0
    regions: int = 0
    matched: int = 0
    """Proposals that match a true object."""
    described: list[bool] = field(default_factory=list)
    """Whether each description names colour and kind."""
    goals: dict[str, list[str]] = field(default_factory=dict)
    """Outcomes by kind of goal: "right", "no region", "said absent" or "wrong regions"."""
    absent_hard: list[bool] = field(default_factory=list)
    """For each hard absent goal, whether it was answered right."""
    membership: list[NDArray[Any]] = field(default_factory=list)
    """Membership scores of the regions, one array per goal."""
    objectness: list[NDArray[Any]] = field(default_factory=list)
    """Objectness of the regions, one array per goal."""
    correct: list[NDArray[Any]] = field(default_factory=list)
    """Whether each region is a target, one array per goal."""
    targets: int = 0
    """Targets of all goals."""
    worlds: dict[str, SceneTally] = field(default_factory=dict)
    """The same counts for each world, if the scenes name theirs."""

    def report(self, balanced: bool) -> dict[str, Any]:
        """Compute the metrics. balanced: use as many goals of every kind as the rarest kind has, from the
        first on."""
        kinds = [kind for kind in GOAL_TYPES if self.goals.get(kind)] + sorted(
            set(self.goals) - set(GOAL_TYPES)
        )
        least = min((len(self.goals[kind]) for kind in kinds), default=0)
        counted = {kind: self.goals[kind][:least] if balanced else self.goals[kind] for kind in kinds}
        outcomes = [outcome for kind in kinds for outcome in counted[kind]]
        wrong = ("no region", "said absent", "wrong regions")
        return {
            "scenes": self.scenes,
            "recall": _share(self.matched, self.objects),
            "precision": _share(self.matched, self.regions),
            "accuracy": {
                **{kind: _share(counted[kind].count("right"), len(counted[kind])) for kind in kinds},
                "all": _share(outcomes.count("right"), len(outcomes)),
            },
            "goals": {kind: len(counted[kind]) for kind in kinds},
            "errors": {kind: {name: counted[kind].count(name) for name in wrong} for kind in kinds},
            "absent_hard": _share(sum(self.absent_hard), len(self.absent_hard)),
            "description": _share(sum(self.described), len(self.described)),
            "average_precision": {
                "score": self._ranking(self.membership),
                "objectness": self._ranking(self.objectness),
            },
            **(
                {"worlds": {name: own.summary() for name, own in sorted(self.worlds.items())}}
                if len(self.worlds) > 1
                else {}
            ),
        }

    def summary(self) -> dict[str, Any]:
        """Metrics of one world, over all its goals."""
        whole = self.report(balanced=False)
        return {
            name: whole[name]
            for name in ("scenes", "recall", "precision", "description", "accuracy", "goals")
        }

    def _ranking(self, scores: list[NDArray[Any]]) -> float | None:
        if not scores or not self.targets:
            return None
        return round(average_precision(np.concatenate(scores), np.concatenate(self.correct), self.targets), 4)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def evaluate(
    grounder: Grounder, scenes: Iterable[TrueScene], failed: Callable[[Failure], None] | None = None
) -> SceneTally:
    """Run a model over scenes. A goal is right if every target is found at IoU 0.5 and no other box is
    returned.

    failed: called for every goal that was answered wrong.
    """
    tally = SceneTally()
    for truth in scenes:
        scene = grounder.perceive(Frame(truth.rgb))
        match = match_boxes(scene.boxes, truth.boxes)
        described = _described(grounder, scene, truth, match)
        answers = grounder.answers(scene, [Goal(goal.text) for goal in truth.goals])
        for own in (tally, *([tally.worlds.setdefault(truth.world, SceneTally())] if truth.world else [])):
            own.scenes += 1
            own.objects += len(truth.objects)
            own.regions += len(scene.boxes)
            own.matched += int((match >= 0).sum())
            own.described += described
            for goal, answer in zip(truth.goals, answers, strict=True):
                outcome = _judge_goal(own, goal, answer, scene, truth, match)
                if failed is not None and own is tally and outcome != "right":
                    boxes = truth.boxes[list(goal.targets)], scene.boxes[list(answer.regions)]
                    failed(Failure(truth.rgb, goal.text, goal.kind, outcome, *boxes))
    return tally


def is_hard(goal: SceneGoal, objects: Iterable[SceneObject]) -> bool:
    """Whether a colour and a kind named in the goal both occur in the scene, possibly on different
    objects."""
    words = {
        form for word in goal.text.split() for form in (word, word.removesuffix("s"), word.removesuffix("es"))
    }
    found = list(objects)
    return any(set(item.kind.split()) <= words for item in found) and any(
        item.colour in words for item in found
    )


def _judge_goal(
    tally: SceneTally,
    goal: SceneGoal,
    answer: RegionAnswer,
    scene: Scene,
    truth: TrueScene,
    match: NDArray[Any],
) -> str:
    targets = truth.boxes[list(goal.targets)]
    if exact_set(scene.boxes[list(answer.regions)], targets):
        outcome = "right"
    elif not set(goal.targets) <= set(match.tolist()):
        outcome = "no region"
    else:
        outcome = "said absent" if not answer.regions else "wrong regions"
    tally.goals.setdefault(goal.kind, []).append(outcome)
    tally.targets += len(goal.targets)
    tally.membership.append(answer.membership)
    tally.objectness.append(scene.objectness)
    tally.correct.append(np.isin(match, goal.targets) & (match >= 0))
    if goal.kind == "absent":
        tally.absent_hard.append(is_hard(goal, truth.objects))
    return outcome


def _described(grounder: Grounder, scene: Scene, truth: TrueScene, match: NDArray[Any]) -> list[bool]:
    """Whether the description of each region that is an object names its colour and its kind."""
    regions = [int(region) for region in np.flatnonzero(match >= 0)]
    if not regions or not grounder.can("describe"):
        return []
    said = [set(text.lower().replace(".", " ").split()) for text in grounder.describe(scene, regions)]
    shown_there = [truth.objects[match[region]] for region in regions]
    return [
        {*item.colour.split(), *item.kind.split()} <= words
        for item, words in zip(shown_there, said, strict=True)
    ]


def table(report: dict[str, Any]) -> str:
    """Format the report as text."""

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [f"scenes {report['scenes']}, seed {report['seed']}"]
    lines += [
        f"{name:<22}{figure(report[name])}" for name in ("recall", "precision", "description", "absent_hard")
    ]
    lines += [f"{'AP of ' + name:<22}{figure(value)}" for name, value in report["average_precision"].items()]
    lines += [f"{'goals':<22}right    of   no region   said absent   wrong regions"]
    for kind, value in report["accuracy"].items():
        errors = report["errors"].get(kind, {})
        tail = "".join(f"{number:>{len(name) + 3}}" for name, number in errors.items())
        lines.append(
            f"{kind:<22}{figure(value)}{report['goals'].get(kind, sum(report['goals'].values())):>6}{tail}"
        )
    for name, own in report.get("worlds", {}).items():
        values = ", ".join(
            f"{key} {figure(value)}"
            for key, value in (*own["accuracy"].items(), ("description", own["description"]))
        )
        lines.append(f"{name + ', ' + str(own['scenes']) + ' scenes':<22}{values}")
    return "\n".join(lines)
