"""Accuracy of the shipped model on unseen scenes, against its manifest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groma_ros.evaluation.scenes import evaluate, rendered_scenes
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import EMBEDDINGS, GRAPHS, Bundle
from groma_ros.simulation.dataset import scene_seeds
from groma_ros.types import Frame, Goal
from tests.pictures import read_rgb

ROOT = Path(__file__).parents[2]
TINY = ROOT / "engines" / "groma-tiny"
SEED, SCENES = 4321, 30
KINDS = ("attribute", "absent", "negation", "superlative", "relation", "plural", "between")


@pytest.fixture(scope="module")
def tiny() -> Iterator[Grounder]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Grounder.load(TINY)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def report(tiny: Grounder) -> dict[str, Any]:
    world = Bundle.load(TINY).test["world"]
    return evaluate(tiny, rendered_scenes(SEED, SCENES, world=world)).report(balanced=True)


def test_manifest_describes_the_bundle() -> None:
    bundle = Bundle.load(TINY)
    assert bundle.name == "groma-tiny" and bundle.licence == "Apache-2.0" and bundle.trained_on
    graphs = sum(bundle.files[name]["bytes"] for name in (*GRAPHS, EMBEDDINGS))
    assert graphs <= 11 * 2**20 and sum(path.stat().st_size for path in TINY.iterdir()) <= 24 * 2**20
    assert max(part["difference"] for part in bundle.graphs["precisions"]["fp32"].values()) < 2e-5
    learnt = bundle.seeds["training_scenes"]  # one pool's first and last, or a list of such pairs
    for first, last in learnt if isinstance(learnt[0], list) else [learnt]:
        for seed in (SEED, bundle.test["seed"]):
            tested = scene_seeds(seed, bundle.test["scenes"])
            assert tested[-1] < first or tested[0] > last, "scenes of the test were trained on"
    assert bundle.test["scenes"] >= 500 and set(KINDS) < set(bundle.test["accuracy"])


def test_region_accuracy_matches_the_manifest(report: dict[str, Any]) -> None:
    said = Bundle.load(TINY).test
    assert report["scenes"] == SCENES
    assert report["recall"] == pytest.approx(said["recall"], abs=0.05)
    assert report["precision"] == pytest.approx(said["precision"], abs=0.06)


def test_answer_accuracy_matches_the_manifest(report: dict[str, Any]) -> None:
    said = Bundle.load(TINY).test["accuracy"]
    # 30 goals a kind, 210 in all: four standard errors of a share near 0.8 are 0.29 and 0.11.
    assert report["accuracy"]["all"] == pytest.approx(said["all"], abs=0.11)
    for kind in KINDS:
        assert report["accuracy"][kind] == pytest.approx(said[kind], abs=0.29), kind


def test_scores_rank_regions_far_better_than_objectness(report: dict[str, Any]) -> None:
    assert report["average_precision"]["score"] > report["average_precision"]["objectness"] + 0.25


def test_ten_goals_at_once_equal_ten_goals_one_by_one(tiny: Grounder) -> None:
    truth = next(rendered_scenes(SEED, 1))
    scene = tiny.perceive(Frame(truth.rgb))
    texts = [goal.text for goal in truth.goals] + [
        "the purple mug",
        "all the boxes",
        "everything",
        "the leftmost object",
    ]
    goals = [Goal(text) for text in texts[:10]]
    assert len(goals) == 10
    for together, goal in zip(tiny.ground(scene, goals), goals, strict=True):
        alone = tiny.ground(scene, [goal])[0]
        assert [item.region for item in together.detections] == [item.region for item in alone.detections]
        assert [item.score for item in together.detections] == pytest.approx(
            [item.score for item in alone.detections], abs=1e-4
        )
        assert together.present == pytest.approx(alone.present, abs=1e-4)


def test_the_demonstrations_picture_lists_objects(tiny: Grounder) -> None:
    image = read_rgb(ROOT / "demo" / "frame.png")
    (answer,) = tiny.ground(Frame(image), [Goal("", "describe")])
    assert len(answer.detections) >= 3
    described = tiny.describe(tiny.perceive(Frame(image)), [item.region for item in answer.detections])
    assert all(text.startswith(("a ", "an ")) and len(text.split()) == 3 for text in described), json.dumps(
        described
    )
