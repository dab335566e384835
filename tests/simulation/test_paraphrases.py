from __future__ import annotations

import numpy as np
import pytest

from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.paraphrases import FRAMES, UNSEEN_FRAMES, paraphrase, reword
from groma_ros.simulation.shapes import KINDS
from groma_ros.simulation.vocabulary import SYNONYMS


def test_every_word_of_the_grammar_has_synonyms_and_none_means_two_things() -> None:
    assert set(SYNONYMS) >= {*COLOURS, *KINDS}
    assert not set(FRAMES) & set(UNSEEN_FRAMES) and all(
        frame.count("{}") == 1 for frame in (*FRAMES, *UNSEEN_FRAMES)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the red mug", {"the crimson cup", "the scarlet cup"}),
        ("both boxes", {"both blocks", "both crates", "both cubes"}),
        (
            "all the bowls that are not cyan",
            {"all the dishes that are not turquoise", "all the dishes that are not teal"},
        ),
        (
            "everything but a box",
            {"everything but a block", "everything but a crate", "everything but a cube"},
        ),
        ("everything that is not an orange thing", {"everything that is not an amber thing"}),
        ("the leftmost object", {"the leftmost object"}),
    ],
)
def test_words_change_and_numbers_and_articles_fit(text: str, said: set[str]) -> None:
    assert {reword(text, np.random.default_rng(seed), chance=1.0) for seed in range(40)} == said


def test_a_paraphrase_means_what_the_goal_means_and_is_said_otherwise() -> None:
    goal = SceneGoal("the red mug", "attribute", (2,))
    drawn = [paraphrase(goal, np.random.default_rng(seed)) for seed in range(300)]
    assert {(one.kind, one.targets) for one in drawn} == {("attribute", (2,))}
    assert "hand me the crimson cup" in {one.text for one in drawn}
    assert np.mean([one.text == goal.text for one in drawn]) < 0.15
    unseen = paraphrase(goal, np.random.default_rng(4), ("bring me {}",))
    assert unseen.text.startswith("bring me the ") or "{}" not in unseen.text
