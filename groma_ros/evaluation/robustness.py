"""`groma eval robustness`: accuracy on the same scenes under image degradations, other cameras and objects,
and rephrased goals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.scenes import TrueScene, evaluate, rendered_scenes
from groma_ros.evaluation.statistics import figure
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.simulation.goal_generator import GOAL_TYPES, View
from groma_ros.simulation.layout import USUAL, Style
from groma_ros.simulation.more_goals import unknown
from groma_ros.simulation.paraphrases import FRAMES, UNSEEN_FRAMES, paraphrase
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.worlds import DEFAULT_WORLD, words_of

Change = Callable[[TrueScene, np.random.Generator], TrueScene]


def _same(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
    return scene


def _pixels(change: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]) -> Change:
    """Apply a change to the picture only."""

    def changed(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
        return dataclasses.replace(scene, rgb=np.ascontiguousarray(change(scene.rgb, rng)))

    return changed


def _noise(rgb: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    return np.clip(rgb + rng.normal(0, 15, rgb.shape), 0, 255).astype(np.uint8)


def _gain(factor: float) -> Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]:
    return lambda rgb, rng: np.clip(rgb * factor, 0, 255).astype(np.uint8)


def _jpeg(rgb: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    done, code = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 15])
    if not done:
        raise ValueError("OpenCV could not encode a picture as JPEG.")
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1]


def _halved(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
    """Halve width and height of the picture."""
    rgb = cv2.resize(scene.rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return dataclasses.replace(scene, rgb=rgb, objects=tuple(_half(item) for item in scene.objects))


def _half(item: SceneObject) -> SceneObject:
    x1, y1, x2, y2 = (side / 2 for side in item.box)
    return dataclasses.replace(item, box=(x1, y1, x2, y2), area=item.area // 4)


def _reworded(frames: tuple[str, ...]) -> Change:
    def changed(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
        return dataclasses.replace(scene, goals=tuple(paraphrase(goal, rng, frames) for goal in scene.goals))

    return changed


def _framed(frames: tuple[str, ...]) -> Change:
    """Put each goal into one of the request templates, otherwise unchanged."""

    def changed(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
        drawn = [frames[int(rng.integers(len(frames)))] for _ in scene.goals]
        goals = zip(drawn, scene.goals, strict=True)
        return dataclasses.replace(
            scene, goals=tuple(dataclasses.replace(g, text=f.replace("{}", g.text)) for f, g in goals)
        )

    return changed


def _capitals(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
    goals = tuple(dataclasses.replace(goal, text=goal.text.upper()) for goal in scene.goals)
    return dataclasses.replace(scene, goals=goals)


def _unknown(scene: TrueScene, rng: np.random.Generator) -> TrueScene:
    """Replace the goals by goals with nouns that occur in no scene and no training data."""
    view = View(scene.objects, scene.rgb.shape[1], words_of(scene.world or DEFAULT_WORLD))
    return dataclasses.replace(scene, goals=tuple(unknown(view, rng, held_out=True) for _ in scene.goals))


@dataclass(frozen=True)
class Condition:
    """A row of the table."""

    what: str
    """Description."""
    change: Change = _same
    """Change applied to every scene."""
    style: Style = USUAL
    """Style of the renderer."""


CONDITIONS = {
    "usual": Condition("as trained on"),
    "blur": Condition(
        "Gaussian blur, sigma 2 pixels of 640", _pixels(lambda rgb, rng: cv2.GaussianBlur(rgb, (0, 0), 2.0))
    ),
    "noise": Condition("Gaussian noise, sigma 15 of 255", _pixels(_noise)),
    "dark": Condition("half as bright", _pixels(_gain(0.5))),
    "bright": Condition("1.5 times as bright, clipped", _pixels(_gain(1.5))),
    "jpeg": Condition("JPEG of quality 15", _pixels(_jpeg)),
    "half": Condition("320x240 instead of 640x480", _halved),
    "narrow": Condition("0.75 times the field of view, from farther away", style=Style(view=0.75)),
    "wide": Condition("1.35 times the field of view, from nearer", style=Style(view=1.35)),
    "colours": Condition(
        "shades of the colours outside those of training", style=Style(unusual_colours=True)
    ),
    "small": Condition("objects 0.75 times as large", style=Style(size=0.75)),
    "large": Condition("objects 1.3 times as large", style=Style(size=1.3)),
    "reworded": Condition("synonyms and requests that training has", _reworded(FRAMES)),
    "unheard": Condition("synonyms, and requests that training never has", _reworded(UNSEEN_FRAMES)),
    "frames": Condition("requests that training never has, alone", _framed(UNSEEN_FRAMES)),
    "grasp": Condition('behind "grasp"', _framed(("grasp {}",))),
    "navigate": Condition('behind "navigate to"', _framed(("navigate to {}",))),
    "go": Condition('behind "go to"', _framed(("go to {}",))),
    "beside": Condition(
        'behind "stop in front of", "stand beside", "go next to", "wait near"',
        _framed(("stop in front of {}", "stand beside {}", "go next to {}", "wait near {}")),
    ),
    "capitals": Condition("in capitals", _capitals),
    "unknown": Condition("nouns that nothing in training has, so that nothing is there", _unknown),
}


def _changed(scenes: Iterable[TrueScene], change: Change, seed: int) -> Iterator[TrueScene]:
    for number, scene in enumerate(scenes):
        yield change(scene, np.random.default_rng([seed, number, 13]))


def robustness(grounder: Grounder, seed: int, count: int, world: str, names: Iterable[str]) -> dict[str, Any]:
    """Report of `groma eval scenes` for every condition, with its description."""
    rows = {}
    for name in names:
        condition = CONDITIONS[name]
        scenes = _changed(
            rendered_scenes(seed, count, world=world, style=condition.style), condition.change, seed
        )
        report = evaluate(grounder, shown(scenes, count, name)).report(balanced=True)
        kept = {key: report[key] for key in ("recall", "precision", "description", "accuracy")}
        rows[name] = {"what": condition.what, **kept}
    return rows


def table(document: dict[str, Any]) -> str:
    """Format the rows as text; kinds of goals by their first six letters."""
    heads = ("recall", "descr.", *(kind[:6] for kind in GOAL_TYPES), "all")
    lines = [
        f"scenes {document['scenes']}, seed {document['seed']}, world {document['world']}",
        f"{'':<10}" + "".join(f"{head:>8}" for head in heads),
    ]
    for name, row in document["conditions"].items():
        values = [
            row["recall"],
            row["description"],
            *(row["accuracy"].get(kind) for kind in (*GOAL_TYPES, "all")),
        ]
        lines.append(f"{name:<10}" + "".join(f"{figure(value):>8}" for value in values) + f"   {row['what']}")
    return "\n".join(lines)
