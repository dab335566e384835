"""Presence signals, by hand and through the whole grounder."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from groma_ros.grounding.calibration import (
    SIGNALS,
    Calibration,
    ProbeBatch,
    ProbeTokens,
    probe_tokens,
    region_signals,
)
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import TOKENIZER, Bundle
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE, PromptTemplate
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.types import Frame, Goal, Scene
from tests.small import GOALS, TEMPLATE, blocks

ASKED = {"queries": {**TEMPLATE.to_dict()["queries"], "probe": ["is there {}"]}}
EVERY = Calibration(answers_none=False, signals=dict.fromkeys(SIGNALS, 0.0), null_goals=("thing", "object"))


@pytest.fixture(scope="module")
def asking(small_model: Path) -> Grounder:
    """The small network with a wording for a probe, every signal read."""
    bundle = Bundle.load(small_model)
    prompt = {**bundle.prompt, **ASKED}
    return Grounder.load(dataclasses.replace(bundle, prompt=prompt), min_presence=0.0, calibration=EVERY)


def test_signals_of_three_regions_by_hand() -> None:
    # Among the regions: 1/2, 1/4, 1/4. Under the first null goal 1/4 for the best one, under the second 1/2.
    goal = np.log([2.0, 1.0, 1.0])
    nulls = np.log([[1.0, 2.0, 1.0], [4.0, 2.0, 2.0]])
    signals = region_signals(goal, nulls)
    assert signals["confidence"] == pytest.approx(0.0, abs=1e-12)
    assert signals["margin"] == pytest.approx(np.log(2))
    assert signals["contrast"] == pytest.approx(np.log(1 / 2) - (np.log(1 / 4) + np.log(1 / 2)) / 2)
    assert signals["height"] == pytest.approx(np.log(4) - (np.log(4) + np.log(8)) / 2)


def test_a_lone_region_has_finite_signals() -> None:
    signals = region_signals(np.array([3.0], np.float32), np.zeros((0, 1), np.float32))
    assert set(signals) == {"confidence", "margin"} and all(np.isfinite(value) for value in signals.values())
    assert signals["margin"] > 20


def test_a_probe_belongs_to_its_own_goal() -> None:
    goals = np.array([[1.0, 0.0], [0.0, 2.0]])
    vocabulary = np.array([[0.0, 0, 0], [0.0, 5, 1], [0.0, 1, 5]])  # one null goal, then the two probes
    asides = ProbeBatch(
        [np.zeros((1, 4), np.float32)], [np.zeros((1, 4), np.float32)] * 2, ProbeTokens((), yes=1, no=2)
    )
    read = asides.read(goals, vocabulary[:, :2], vocabulary)
    assert [item["probe"] for item in read] == [4.0, -4.0]
    assert read[0]["margin"] == 1.0 and read[1]["margin"] == 2.0


def test_yes_and_no_are_tokens_behind_the_question(small_model: Path) -> None:
    tokenizer = GromaTokenizer.load(small_model / TOKENIZER, 30)
    for template in (PromptTemplate.from_dict({**TEMPLATE.to_dict(), **ASKED}), PUBLISHED_TEMPLATE):
        tokens = probe_tokens(tokenizer, template)
        behind = template.goal.split("{}")[1]
        yes, no = (tokenizer.encode_template(behind + word) for word in (" Yes", " No"))
        start = len(tokenizer.encode_template(behind))
        assert yes[start : start + len(tokens.lead) + 1] == [*tokens.lead, tokens.yes]
        assert no[start : start + len(tokens.lead) + 1] == [*tokens.lead, tokens.no]
        assert tokens.yes != tokens.no


def test_every_signal_comes_with_an_answer_that_it_does_not_change(
    asking: Grounder, grounder: Grounder
) -> None:
    scene = grounder.perceive(Frame(blocks(1)))
    goals = [Goal(text) for text in GOALS]
    plain, read = grounder.answers(scene, goals), asking.answers(scene, goals)
    for before, after in zip(plain, read, strict=True):
        assert before.regions == after.regions
        np.testing.assert_allclose(before.scores, after.scores, atol=1e-5)
        assert set(before.signals) == {"stop"} and set(after.signals) == {"stop", *SIGNALS}
        assert after.signals["stop"] == pytest.approx(before.signals["stop"], abs=1e-4)
        assert after.present == 0.5  # all weights are zero
    assert len({round(item.signals["probe"], 3) for item in read}) > 5


def test_signals_of_a_batch_are_those_of_each_goal_alone(asking: Grounder) -> None:
    scene = asking.perceive(Frame(blocks(2)))
    together = asking.answers(scene, [Goal(text) for text in GOALS])
    for text, answer in zip(GOALS, together, strict=True):
        (alone,) = asking.answers(scene, [Goal(text)])
        for name, value in alone.signals.items():
            assert answer.signals[name] == pytest.approx(value, abs=1e-3), name


def test_null_goal_has_zero_contrast_to_itself(asking: Grounder) -> None:
    only = dataclasses.replace(EVERY, null_goals=("thing",))
    other = Grounder(asking._vision, asking._language, asking._tokenizer, asking._template, only, 0.0)
    (answer,) = other.answers(other.perceive(Frame(blocks(3))), [Goal("thing")])
    assert answer.signals["contrast"] == pytest.approx(0, abs=1e-4) and answer.signals[
        "height"
    ] == pytest.approx(0, abs=1e-4)


def test_presence_is_the_weighted_sum_of_the_signals(asking: Grounder) -> None:
    weighed = Calibration(answers_none=False, presence_bias=-1.0, signals={"confidence": 0.5, "margin": 0.25})
    other = Grounder(asking._vision, asking._language, asking._tokenizer, asking._template, weighed, 0.0)
    scene: Scene = other.perceive(Frame(blocks(1)))
    for answer in other.answers(scene, [Goal(text) for text in GOALS]):
        odds = -1 + 0.5 * answer.signals["confidence"] + 0.25 * answer.signals["margin"]
        assert answer.present == pytest.approx(1 / (1 + np.exp(-odds)))
        assert set(answer.signals) == {"stop", "confidence", "margin"}
    other.min_presence = 0.999
    assert all(
        not answer.regions for answer in other.answers(scene, [Goal(GOALS[0])]) if answer.present < 0.999
    )


def test_a_probe_without_a_wording_is_refused(small_model: Path) -> None:
    with pytest.raises(
        ValueError, match=r"reads the signal 'probe', but the prompt template has no such query"
    ):
        Grounder.load(small_model, calibration=EVERY)
