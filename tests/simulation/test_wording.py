"""Request templates and wordings: held-out ones are never used in training, and rephrasing keeps the
meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pytest

from groma_ros.simulation.everyday_words import ADJECTIVES, HELD_OUT_ADJECTIVES, HELD_OUT_NOUNS, NOUNS
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.requests import (
    ENDINGS,
    FUNCTION_WORDS,
    GOING,
    HELD_OUT_FRAMES,
    OPENERS,
    PLACES,
    TRAINED_FRAMES,
    VERBS,
    draw_frame,
    draw_held_out_frame,
)
from groma_ros.simulation.vocabulary import COLOUR_NAMES, HELD_OUT_SYNONYMS, KIND_NAMES, SYNONYMS, plural
from groma_ros.simulation.wording import dressed, mistyped, renamed, say, turned
from groma_ros.simulation.world_objects import WORLD_KINDS


def _generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def test_a_third_of_at_least_150_frames_is_held_out_and_shares_no_verb_with_training() -> None:
    trained, held_out = set(TRAINED_FRAMES), set(HELD_OUT_FRAMES)
    assert len(trained) == len(TRAINED_FRAMES) and len(held_out) == len(HELD_OUT_FRAMES)
    assert len(trained) + len(held_out) >= 150 and not trained & held_out
    assert len(held_out) / (len(trained) + len(held_out)) == pytest.approx(1 / 3, abs=0.02)
    assert all(frame.count("{}") == 1 for frame in trained | held_out)
    plain = {frame.removesuffix(" {}") for frame in held_out if frame.endswith(" {}")}
    assert not plain & {*VERBS, *(frame.removesuffix(" {}") for frame in trained)}
    composed = {f"{opener} {verb}" for opener in OPENERS for verb in VERBS}
    assert not plain & composed


def test_made_up_words_are_in_about_a_quarter_of_the_frames_unless_only_real_ones_are_wanted() -> None:
    def words(frames: Iterable[str]) -> set[str]:
        return {word.strip(",?") for frame in frames for word in frame.split()} - {"{}"}

    real = words((*TRAINED_FRAMES, *OPENERS, *VERBS, *ENDINGS, *GOING, *PLACES))
    assert words(draw_frame(rng, real_words=True) for rng in _generators(2000)) <= real
    known = real | set(FUNCTION_WORDS)
    strange = [frame for frame in map(draw_frame, _generators(2000)) if words([frame]) - known]
    assert 0.15 < len(strange) / 2000 < 0.3 and all(frame.count("{}") == 1 for frame in strange)


def test_some_requests_are_for_a_place_beside_the_object() -> None:
    drawn = list(map(draw_frame, _generators(3000)))
    beside = [frame for frame in drawn if any(f"{verb} in front of {{}}" in frame for verb in GOING)]
    assert 3 < len(beside) < 60
    every = [frame for frame in drawn if any(f" {place} {{}}" in frame for place in PLACES)]
    assert len(every) / 3000 == pytest.approx(0.12, abs=0.04)


def test_frames_that_training_draws_are_never_held_out_ones() -> None:
    drawn = {draw_frame(rng) for rng in _generators(3000)}
    assert (
        not drawn & set(HELD_OUT_FRAMES)
        and len(drawn) > 1000
        and all(frame.count("{}") == 1 for frame in drawn)
    )
    assert {draw_held_out_frame(rng) for rng in _generators(800)} == set(HELD_OUT_FRAMES)
    for needed in (
        "grasp",
        "grab",
        "pick up",
        "take",
        "fetch",
        "bring",
        "hand over",
        "go to",
        "drive to",
        "navigate to",
        "look at",
    ):
        assert f"{needed} {{}}" in TRAINED_FRAMES


def test_everyday_words_are_two_thousand_and_a_quarter_is_held_out() -> None:
    lists = (NOUNS, HELD_OUT_NOUNS, ADJECTIVES, HELD_OUT_ADJECTIVES)
    words = [word for part in lists for word in part]
    assert len(words) == len(set(words)) == 2000
    assert (len(HELD_OUT_NOUNS) + len(HELD_OUT_ADJECTIVES)) / 2000 == pytest.approx(0.25, abs=0.001)
    known = {
        *KIND_NAMES,
        *COLOUR_NAMES,
        *(word for table in (SYNONYMS, HELD_OUT_SYNONYMS) for some in table.values() for word in some),
    }
    assert not known & set(words)
    assert not {
        "table",
        "shelf",
        "wall",
        "floor",
        "sofa",
        "cabinet",
        "robot",
        "arm",
        "hand",
        "book",
        "tray",
    } & set(words)


def test_every_name_has_synonyms_and_no_word_means_two_things() -> None:
    assert set(WORLD_KINDS) <= set(KIND_NAMES), "a kind of another simulator has no name"
    assert set(SYNONYMS) == {*KIND_NAMES, *COLOUR_NAMES} and set(HELD_OUT_SYNONYMS) <= set(SYNONYMS)
    spoken = [word for table in (SYNONYMS, HELD_OUT_SYNONYMS) for words in table.values() for word in words]
    assert len(set(spoken)) == len(spoken) and not set(spoken) & {*KIND_NAMES, *COLOUR_NAMES}


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("box", "boxes"),
        ("dish", "dishes"),
        ("loaf", "loaves"),
        ("box of cereal", "boxes of cereal"),
        ("loaf of bread", "loaves of bread"),
    ],
)
def test_plurals(name: str, many: str) -> None:
    assert plural(name) == many


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "the red mug",
            {
                "the mug that is red",
                "a red mug",
                "red mug",
                "the red-coloured mug",
                "the mug with the red colour",
            },
        ),
        (
            "the leftmost blue box",
            {
                "the blue box furthest to the left",
                "the furthest left blue box",
                "the blue box on the far left",
            },
        ),
        ("all the mugs", {"every one of the mugs", "each of the mugs", "all of the mugs"}),
        (
            "the ball left of the box",
            {"the ball on the left side of the box", "the ball to the left of the box"},
        ),
        ("both cones", {"the two cones", "both of the cones"}),
        ("the farthest thing", {"the furthest thing", "the thing furthest away", "the most distant thing"}),
        ("everything but the rings", {"everything except the rings", "all but the rings"}),
        ("the mug that is not red", {"the mug which is not red", "the mug that isn't red"}),
    ],
)
def test_forms_turn_into_what_people_say(text: str, said: set[str]) -> None:
    drawn = {turned(text, rng) for rng in _generators(400)}
    assert said <= drawn
    held_out = {turned(text, rng, held_out=True) for rng in _generators(200)}
    assert not (held_out - {text}) & drawn


def test_a_turned_text_names_the_same_kinds_and_colours() -> None:
    names = re.compile(rf"\b(?:{'|'.join((*KIND_NAMES, *COLOUR_NAMES))})")
    for text in (
        "the red mug",
        "all the boxes that are not green",
        "the nearest cyan bowl",
        "the cone between the red box and the mug",
    ):
        for rng in _generators(200):
            assert sorted(names.findall(turned(text, rng))) == sorted(names.findall(text))


def test_synonyms_keep_the_number_and_held_out_ones_stay_apart() -> None:
    drawn = {renamed("both red boxes", rng, chance=1.0) for rng in _generators(60)}
    assert drawn == {
        f"both {colour} {noun}" for colour in SYNONYMS["red"] for noun in ("blocks", "crates", "cubes")
    }
    held_out = {renamed("an orange ball", rng, held_out=True, chance=1.0) for rng in _generators(60)}
    assert held_out == {"a tangerine orb", "a tangerine globe"}
    assert renamed("the cereal box", np.random.default_rng(1), chance=0.0) == "the cereal box"


def test_a_typing_error_changes_one_long_word_and_never_a_short_one() -> None:
    for rng in _generators(200):
        changed = mistyped("the red cylinder left of it", rng).split()
        assert (
            changed[:2] == ["the", "red"]
            and changed[3:] == ["left", "of", "it"]
            and abs(len(changed[2]) - 8) <= 1
        )
    assert mistyped("the red mug", np.random.default_rng(0)) == "the red mug"


def test_a_goal_is_said_with_its_targets_and_the_same_seed_says_it_the_same() -> None:
    goal = SceneGoal("the red mug", "attribute", (2,))
    drawn = [say(goal, rng) for rng in _generators(600)]
    assert {(one.kind, one.targets) for one in drawn} == {("attribute", (2,))}
    assert drawn == [say(goal, rng) for rng in _generators(600)]
    texts = {one.text for one in drawn}
    assert (
        len(texts) > 400
        and any(text.endswith("?") for text in texts)
        and any(text[0].isupper() for text in texts)
    )
    heads = tuple(
        frame.split("{}")[0].strip().lower() for frame in HELD_OUT_FRAMES if not frame.startswith("{}")
    )
    unheard = [say(goal, rng, held_out=True).text.lower() for rng in _generators(200)]
    framed = [text for text in unheard if text.startswith(heads)]
    assert len(framed) > 150
    assert dressed("x", np.random.default_rng(0))[0].lower() == "x"
