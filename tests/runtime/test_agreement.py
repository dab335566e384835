"""All backends and precisions available on this machine agree, and repeat bit for bit."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from groma_ros.boxes import box_iou
from groma_ros.evaluation.scenes import TrueScene, rendered_scenes
from groma_ros.export.convert import convert
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import MANIFEST, Bundle
from groma_ros.types import Frame, Goal, Grounding

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
SEED, SCENES = 5005, 50
# Backend and precision -> how far a score may be from float32 in PyTorch.
LIMITS = {
    ("onnx", "fp32"): 1e-3,
    ("onnx", "fp16"): 0.02,
    ("onnx", "int8"): 0.05,
    ("llama_cpp", "f16"): 0.02,
    ("llama_cpp", "q8_0"): 0.05,
    ("torch", "bf16"): 0.02,
}
# Goals that may differ by more although float32 was sure of them. Processors sum bfloat16 in different ways,
# and a list ends or goes on: one of 350 goals does here with the weights that ship, in q8_0, int8 and bf16.
# An object near the threshold of objectness is a region or not, and sets ("all that are not ...") gain or
# lose it: with other weights none or 3 in int8, and 3 in fp16.
KNOWN = {("torch", "bf16"): 3, ("onnx", "fp16"): 5, ("onnx", "int8"): 3, ("llama_cpp", "q8_0"): 1}


@pytest.fixture(scope="module")
def scenes() -> list[TrueScene]:
    return list(rendered_scenes(SEED, SCENES))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """groma-tiny in every precision that the table names, and in int4."""
    folder = tmp_path_factory.mktemp("precisions") / "groma-tiny"
    return convert(
        TINY, folder, list(dict.fromkeys([*(name for _, name in LIMITS if name != "bf16"), "int4"]))
    ).directory


@pytest.fixture(scope="module")
def wanted(scenes: list[TrueScene]) -> list[list[Grounding]]:
    return list(answers(Grounder.load(TINY, backend="torch", precision="fp32"), scenes))


def test_precisions_share_the_files_that_are_the_same(model: Path) -> None:
    """int4 has the vision graphs of int8, whose narrow region encoder is that of fp32; each is stored
    once."""
    bundle = Bundle.load(model)
    names = {
        precision: {role: part["file"] for role, part in parts.items()}
        for precision, parts in bundle.graphs["precisions"].items()
    }
    assert names["int8"] == {
        "perceive": "perceive.int8.onnx",
        "encode_regions": "encode_regions.onnx",
        "language": "language.int8.onnx",
    }
    assert names["int4"] == {**names["int8"], "language": "language.int4.onnx"}
    assert sorted(path.name for path in model.iterdir()) == sorted([*bundle.files, MANIFEST])


def answers(grounder: Grounder, scenes: list[TrueScene]) -> Iterator[list[Grounding]]:
    """The groundings of one goal of each kind for every scene."""
    for scene in scenes:
        yield grounder.ground(Frame(scene.rgb), [Goal(goal.text) for goal in scene.goals])


def worst(found: Grounding, wanted: Grounding) -> tuple[float, float]:
    """The least IoU and the greatest difference of scores over two sets of detections; (0, 1) if they are not
    of one size."""
    if len(found.detections) != len(wanted.detections):
        return 0.0, 1.0
    if not wanted.detections:
        return 1.0, 0.0
    overlap = box_iou(
        np.array([item.box for item in found.detections]), np.array([item.box for item in wanted.detections])
    )
    match = overlap.argmax(1)
    if len(set(match.tolist())) != len(match):
        return 0.0, 1.0
    scores = [
        abs(item.score - wanted.detections[index].score)
        for item, index in zip(found.detections, match, strict=True)
    ]
    return float(overlap.max(1).min()), max(scores)


def undecided(found: Grounding, wanted: Grounding, limit: float) -> bool:
    """Whether float32 itself, or what is held against it, tossed a coin over this goal: over its presence, or
    over a region, which had even odds against the next one or against the end of the list."""
    scores = [item.score for item in (*found.detections, *wanted.detections)]
    return abs(wanted.present - 0.5) <= limit or min(scores, default=1.0) <= 0.5 + limit


@pytest.mark.parametrize(("backend", "precision"), LIMITS)
def test_the_same_detections(
    backend: str, precision: str, model: Path, scenes: list[TrueScene], wanted: list[list[Grounding]]
) -> None:
    grounder = Grounder.load(model, backend=backend, precision=precision, threads=1)
    found = list(answers(grounder, scenes))
    pairs = [
        pair for ours, theirs in zip(found, wanted, strict=True) for pair in zip(ours, theirs, strict=True)
    ]
    assert len(pairs) >= 4 * SCENES
    limit = LIMITS[backend, precision]
    off = [pair for pair in pairs if worst(*pair)[0] < 0.98 or worst(*pair)[1] > limit]
    sure = [pair for pair in off if not undecided(*pair, limit)]
    known = KNOWN.get((backend, precision), 0)
    assert len(sure) <= known, sure
    # The calibration of scores decides which of them were sure.
    assert len(off) <= known + 0.01 * len(pairs), off
    again = [
        grounder.ground(Frame(scene.rgb), [Goal(goal.text) for goal in scene.goals]) for scene in scenes[:3]
    ]
    assert list(map(plain, again)) == list(map(plain, found[:3])), "a repeat on the CPU gives other bits"


def plain(groundings: list[Grounding]) -> list[tuple[object, ...]]:
    return [(*map(dataclasses.astuple, item.detections), item.present, item.margin) for item in groundings]
