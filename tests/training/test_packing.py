"""Questions about pictures in other colours are about kinds only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.simulation.vocabulary import COLOUR_NAMES
from groma_ros.tokenization.prompts import TINY_TEMPLATE
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.training.features import SceneFeatures, in_other_colours
from groma_ros.training.packing import ask
from groma_ros.types import Intrinsics

BUNDLE = Path(__file__).parents[2] / "engines" / "groma-tiny"
TOKENIZER = GromaTokenizer.load(BUNDLE / "tokenizer.model", 46)
SHARE = {"attribute": 3.0, "absent": 2.0, "superlative": 2.0, "describe": 9.0, "caption": 1.0}


def _thing(kind: str, colour: str, x: float) -> SceneObject:
    return SceneObject(kind, colour, (x, 20.0, x + 20, 40.0), 1.0, 400, (x / 50, 0.0, 1.0), (0.1, 0.1, 0.1))


def _scene() -> SceneSample:
    image = np.full((96, 96, 3), (200, 20, 20), np.uint8)
    objects = (_thing("mug", "red", 4.0), _thing("cereal box", "red", 36.0), _thing("ball", "blue", 68.0))
    return SceneSample(image, np.zeros((96, 96), np.float32), Intrinsics(80, 80, 48, 48, 96, 96), objects, 0)


def _asked(sample: SceneSample, seed: int) -> list[tuple[str, str, str]]:
    """Kind, prompt and answer in the loss of every question; object i is region i."""
    regions = np.arange(len(sample.objects))
    features = SceneFeatures(torch.zeros(1, 4), torch.zeros(len(regions), 4), regions, sample)
    questions = ask(features, TOKENIZER, TINY_TEMPLATE, SHARE, np.random.default_rng(seed))
    return [(q.kind, TOKENIZER.decode(q.ids), TOKENIZER.decode(q.ids[q.answer :])) for q in questions]


def test_descriptions_of_pictures_in_other_colours_teach_the_kind_after_any_colour() -> None:
    colours, kinds = set(), set()
    for seed in range(40):
        sample = in_other_colours(_scene(), np.random.default_rng(seed))
        for _, prompt, answer in (each for each in _asked(sample, seed) if each[0] == "describe"):
            kinds.add(answer.removesuffix("</s>").strip())
            colours |= {colour for colour in COLOUR_NAMES if colour in prompt}
    assert kinds == {"mug", "cereal box", "ball"}
    assert colours == set(COLOUR_NAMES)


def test_goals_about_pictures_in_other_colours_name_no_colour_of_what_is_there() -> None:
    for seed in range(40):
        asked = _asked(in_other_colours(_scene(), np.random.default_rng(seed)), seed)
        assert not any(kind == "caption" for kind, *_ in asked)
        named = [text for kind, text, _ in asked if kind in ("attribute", "superlative")]
        assert named and not any(colour in text for text in named for colour in COLOUR_NAMES)


def test_other_pictures_are_described_with_their_colours() -> None:
    answers = {answer for kind, _, answer in _asked(_scene(), 0) if kind == "describe"}
    assert answers == {"a red mug</s>", "a red cereal box</s>", "a blue ball</s>"}
