"""Dialogue about one image: against the plain network, with user regions, up to the context length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from groma_ros.grounding.conversation import Conversation, Sessions, Turn, referring
from groma_ros.grounding.grounder import MIN_ANSWER_TOKENS, Grounder
from groma_ros.model.groma import Groma
from groma_ros.runtime.bundle import TOKENIZER, Bundle
from groma_ros.runtime.torch import load_model
from groma_ros.tokenization.prompts import PLACEHOLDERS, REGION_REFERENCE, expand, parse_answer
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text
from groma_ros.types import Goal, Scene
from tests.small import TEMPLATE

BOXES = np.array([[4, 6, 30, 40], [32, 10, 60, 44]], np.float32)
REFERENCE = Text(REGION_REFERENCE, True)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Groma:
    return load_model(Bundle.load(small_model))


@pytest.fixture(scope="module")
def tokenizer(small_model: Path) -> GromaTokenizer:
    return GromaTokenizer.load(small_model / TOKENIZER, 30)


def test_numbers_in_a_question_refer_to_its_regions() -> None:
    assert referring("is {1} left of {2}?", 2) == (
        (Text("is "), REFERENCE, Text(" left of "), REFERENCE, Text("?")),
        (0, 1),
    )
    assert referring("{2} or {1} or {2}", 2)[1] == (1, 0, 1)
    parts, named = referring(" what are these? ", 2)
    assert named == (0, 1) and parts == (*[Text(REGION_REFERENCE + " ", True)] * 2, Text("what are these?"))
    assert referring("a {1} b", 0) == ((Text("a {1} b"),), ())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("is it {3}?", r"names region \{3\}, and it has 2"),
        ("{0}", r"names region \{0\}"),
        ("only {2}", r"does not name region \{1\}"),
    ],
)
def test_a_question_that_names_other_regions_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        referring(text, 2)


def written(
    model: Groma, tokenizer: GromaTokenizer, scene: Scene, ids: list[int], referred: list[int], limit: int
) -> list[int]:
    """Greedy free generation by full passes over one whole prompt."""
    opened = expand(
        tokenizer, TEMPLATE.prefix_ids(tokenizer) + ids, len(scene.image_tokens), len(scene.boxes), referred
    )
    embeddings = model.embed(torch.from_numpy(opened.ids)).clone()
    for slots, values in (
        (opened.image_slots, scene.image_tokens),
        (opened.region_slots, scene.region_tokens),
        (opened.feature_slots, scene.region_tokens[opened.feature_regions]),
    ):
        embeddings[slots] = torch.from_numpy(values)
    missing = list(range(tokenizer.region_id(0) + len(scene.boxes), len(tokenizer)))
    out: list[int] = []
    while len(out) < limit:
        with torch.no_grad():
            logits = model.logits(model.hidden(embeddings[None])[0, -1])
        logits[missing] = -torch.inf
        best = int(logits.argmax())
        if best == tokenizer.eos_id:
            break
        out.append(best)
        embeddings = torch.cat([embeddings, model.embed(torch.tensor([best]))])
    return out


def test_a_dialogue_about_regions_is_that_of_the_plain_network(
    grounder: Grounder, model: Groma, tokenizer: GromaTokenizer, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounder, "max_answer_tokens", 12)
    goals = [Goal("the red {1} left of {2}", "chat", regions=BOXES), Goal("find the mug", "chat")]
    conversation, prompt, referred = Conversation.about(scene), [], []
    for goal in goals:
        answer, conversation = grounder.converse(conversation, goal)
        parts, named = referring(goal.text, 0 if goal.regions is None else len(goal.regions))
        prompt += TEMPLATE.goal_ids(tokenizer, "grounded_chat", parts)
        overlap = np.abs(conversation.scene.boxes[:, None] - BOXES[None]).max(-1)
        referred += [int(overlap[:, index].argmin()) for index in named]
        assert overlap.min(0).max() < 1e-3
        out = written(model, tokenizer, conversation.scene, prompt, referred, 12)
        assert answer.text == parse_answer(tokenizer, out, len(conversation.scene.boxes)).text
        prompt += [
            *(token for token in out if token not in map(tokenizer.id, PLACEHOLDERS)),
            tokenizer.eos_id,
        ]
    assert [token for turn in conversation.turns for token in turn.ids] == prompt
    alone, _ = grounder.converse(Conversation.about(scene), goals[1])
    assert alone.goal is goals[1] and len(conversation.turns) == 2


def test_earlier_turns_keep_their_boxes_when_regions_join(
    grounder: Grounder, tokenizer: GromaTokenizer, scene: Scene
) -> None:
    first = Conversation.about(scene).with_turn(
        Turn((tokenizer.region_id(2), 5, tokenizer.region_id(0)), (1,))
    )
    joined = first.joined(BOXES, grounder.refer, tokenizer)[0]
    (turn,) = joined.turns
    before = [scene.boxes[index] for index in (2, 0, 1)]
    after = [
        joined.scene.boxes[index]
        for index in (*(tokenizer.region_index(turn.ids[place]) for place in (0, 2)), turn.referred[0])
    ]
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert turn.ids[1] == 5 and joined.base is scene
    again = joined.joined(BOXES[:1], grounder.refer, tokenizer)[0]
    np.testing.assert_allclose(again.regions, np.concatenate([BOXES, BOXES[:1]]))


def test_the_oldest_turns_are_forgotten_where_the_context_is_too_short(
    grounder: Grounder, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounder, "max_answer_tokens", 20)
    conversation, longest = Conversation.about(scene), 0
    for number in range(16):
        conversation = grounder.converse(
            conversation, Goal(f"find all the boxes left of the red ball {number}", "chat")
        )[1]
        used = sum(len(turn.ids) for turn in conversation.turns)
        assert grounder._length() + used <= grounder._language.context - MIN_ANSWER_TOKENS + 20
        longest = max(longest, len(conversation.turns))
    assert 2 <= len(conversation.turns) <= longest < 16


def test_fitting_keeps_the_newest() -> None:
    turns = tuple(Turn(tuple(range(length))) for length in (4, 3, 2))
    conversation = Conversation(None, None, turns=turns)  # type: ignore[arg-type]
    assert [conversation.fitting(room).turns for room in (9, 8, 5, 4, 0)] == [
        turns,
        turns[1:],
        turns[1:],
        turns[2:],
        (),
    ]


def test_only_the_sessions_used_last_are_kept() -> None:
    sessions: Sessions[int] = Sessions()
    for number, name in enumerate("abc"):
        sessions.keep(name, number, most=3)
    assert sessions.get("a") == 0
    sessions.keep("d", 3, most=3)
    assert [sessions.get(name) for name in "abcd"] == [0, None, 2, 3] and len(sessions) == 3
    sessions.keep("a", 7, most=1)
    assert len(sessions) == 1 and sessions.get("a") == 7
