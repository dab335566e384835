"""Tokenization, templates, expansion and answer parsing, against recorded runs of the published tokenizer."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from groma_ros.network_config import ADDED_TOKENS
from groma_ros.tokenization.prompts import (
    PUBLISHED_TEMPLATE,
    TINY_TEMPLATE,
    Answer,
    PromptTemplate,
    Span,
    expand,
    parse_answer,
    plain,
)
from groma_ros.tokenization.sentencepiece_model import (
    BYTE,
    CONTROL,
    UNKNOWN,
    UNUSED,
    Piece,
    SentencePieceModel,
)
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text
from groma_ros.training.vocabulary import train_bpe

DATA = Path(__file__).parents[1] / "data" / "tokenizer"
GOLDEN = json.loads((DATA / "llama_golden.json").read_text())
PUBLISHED = {name.split("|")[0]: run for name, run in GOLDEN.items() if name.endswith("legacy=False")}
HOSTILE = [
    "<r3>",
    "</s>",
    "<image>",
    "<region>",
    "a<p>b</p>",
    "<roi><r1></roi>",
    "[grounding]",
    "<unk>",
    "<s>",
    "[PAD]",
    "<sep>",
    "<refer_feat>",
    "\U0001f600",
    "猫",
    "x" * 10_000,
    "\u2581<r0>",
    "{}",
    "{0}",
]

VOCABULARY = 32000
FIRST_MERGE = 259


def rebuild(recorded: Iterable[tuple[str, int]]) -> SentencePieceModel:
    """A partial Llama vocabulary of 32000 pieces from recorded pairs of token and id; other places hold
    pieces no text reaches.

    Llama's ids are the order of its merges (score = 259 - id), so recorded ids give recorded scores. Pieces
    on the way to a recorded one were not recorded: every head of a recorded piece is added, just ahead of the
    first piece it leads to. ">." is the one piece of which only the effect was seen (the lost dot after an
    added token).
    """
    known = {token: index for token, index in recorded if FIRST_MERGE <= index < VOCABULARY}
    heads: dict[str, float] = {">.": -15000.0}
    for token, index in known.items():
        for length in range(2, len(token)):
            head = token[:length]
            if head not in known:
                heads[head] = max(heads.get(head, -1e9), FIRST_MERGE - index + 0.5)
    letters = {letter for token in (*known, *heads, "<unk>") for letter in token} - set(known)
    pieces = [Piece(f"\ue000{index}", -1e6, UNUSED) for index in range(VOCABULARY)]
    pieces[:3] = [Piece("<unk>", 0, UNKNOWN), Piece("<s>", 0, CONTROL), Piece("</s>", 0, CONTROL)]
    pieces[3:FIRST_MERGE] = [Piece(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256)]
    for token, index in known.items():
        pieces[index] = Piece(token, float(FIRST_MERGE - index))
    free = iter(set(range(FIRST_MERGE, VOCABULARY)) - set(known.values()))
    for text, score in (*sorted(heads.items()), *((letter, -1e5) for letter in sorted(letters))):
        pieces[next(free)] = Piece(text, score)
    return SentencePieceModel.from_pieces(pieces)


@pytest.fixture(scope="module")
def llama() -> GromaTokenizer:
    pairs: list[tuple[str, int]] = []
    for run in GOLDEN.values():
        pairs += (
            zip(run["tokens"], run["ids"], strict=True)
            if "ids" in run
            else [tuple(pair) for pair in run["tail"]]
        )
    return GromaTokenizer(rebuild(pairs))


@pytest.fixture(scope="module")
def tiny() -> GromaTokenizer:
    corpus = [
        f"find <p>the {colour} {kind}</p>:" for colour in ("red", "blue") for kind in ("box", "mug")
    ] * 3
    return GromaTokenizer(
        train_bpe([*corpus, "describe <roi><r1></roi><refer_feat>:", "a red box</s>"], 330),
        num_new_token=14 + 32,
    )


def test_ids_equal_the_slow_tokenizer_on_random_text_and_tokens() -> None:
    reference = GromaTokenizer(SentencePieceModel.load(DATA / "reference.model"))
    cases = json.loads((DATA / "reference_cases.json").read_text())["prompts"]
    assert len(cases) == 140
    for text, ids in cases:
        assert reference.encode_template(text, start=True) == ids, text


@pytest.mark.parametrize("name", [name for name, run in PUBLISHED.items() if "prompt" in run])
def test_published_prompts_have_the_recorded_ids(llama: GromaTokenizer, name: str) -> None:
    assert llama.encode_template(PUBLISHED[name]["prompt"], start=True) == PUBLISHED[name]["ids"]


@pytest.mark.parametrize("name", [name for name, run in PUBLISHED.items() if "tail" in run])
def test_published_answers_have_the_recorded_ids(llama: GromaTokenizer, name: str) -> None:
    tail = [index for _, index in PUBLISHED[name]["tail"]]
    assert llama.encode_template("ASSISTANT: " + name.removeprefix("answer "))[-len(tail) :] == tail


def test_special_cases_of_the_published_tokenizer(llama: GromaTokenizer) -> None:
    dot, question = llama.encode_template("image.")[-1], 29973
    assert dot == 29889
    assert llama.encode_template("<image>. ASSISTANT:") == [32008, 319, 1799, 9047, 13566, 29901]
    assert llama.encode_template("<refer_feat>?") == [32012, question]
    assert llama.encode_template("</s>USER:")[:2] == [2, 11889]
    assert llama.encode_template("USER:", start=True)[:3] == [1, 3148, 1001]
    assert llama.encode_template("<p>the man</p> in") == [32006, 1552, 767, 32007, 262]
    assert llama.encode_template("</s> the") == [
        2,
        278,
    ]  # a blank stays beside </s>, and vanishes beside an added token
    assert llama.encode_template("<p> the </p>") == [32006, 1552, 32007]


@pytest.mark.parametrize(
    ("name", "kind", "text", "wording"),
    [
        ("rec", "one", "the man in the red shirt", 0),
        ("rec_which", "one", "dog on the left", 4),
        ("det", "all", "person", 0),
        ("det", "auto", " person ", 0),
        ("cap", "describe", "", 0),
        ("ref_what", "describe", "", 1),
        ("gcap", "caption", "", 0),
        ("vqa", "chat", "What color is the car?", 0),
    ],
)
def test_prefix_and_goal_make_the_recorded_prompt(
    llama: GromaTokenizer, name: str, kind: str, text: str, wording: int
) -> None:
    prefix, goal = (
        PUBLISHED_TEMPLATE.prefix_ids(llama),
        PUBLISHED_TEMPLATE.goal_ids(llama, kind, text, wording),
    )
    assert len(prefix) == 72
    if kind in ("one", "all", "auto"):
        assert goal.pop() == llama.id("<roi>")
    assert prefix + goal == PUBLISHED[name]["ids"]


def test_every_published_wording_survives_its_own_split(llama: GromaTokenizer) -> None:
    frame = PUBLISHED_TEMPLATE.goal
    for kind, wordings in PUBLISHED_TEMPLATE.queries.items():
        for index, wording in enumerate(wordings):
            ids = PUBLISHED_TEMPLATE.goal_ids(llama, kind, "the dog", index)
            joined = frame.replace("{}", wording.replace("{}", "the dog")) + (
                "<roi>" if kind in ("one", "all", "auto") else ""
            )
            assert ids == llama.encode_template(joined)


@pytest.mark.parametrize("text", HOSTILE)
def test_user_text_never_becomes_a_special_token(
    llama: GromaTokenizer, tiny: GromaTokenizer, text: str
) -> None:
    for tokenizer in (llama, tiny):
        special = {*range(tokenizer.base, len(tokenizer)), 0, 1, 2}
        assert not special & set(tokenizer.encode_parts([Text(text)]))
    for tokenizer, template in ((llama, PUBLISHED_TEMPLATE), (tiny, TINY_TEMPLATE)):
        harmless = [i for i in template.goal_ids(tokenizer, "one", "dog") if i >= tokenizer.base or i < 3]
        assert [
            i for i in template.goal_ids(tokenizer, "one", text) if i >= tokenizer.base or i < 3
        ] == harmless
    assert tiny.decode(tiny.encode_parts([Text(text)])) == text.replace("\u2581", " ").removeprefix(" ")


def test_user_text_keeps_its_words_around_a_literal_token(tiny: GromaTokenizer) -> None:
    assert tiny.decode(TINY_TEMPLATE.goal_ids(tiny, "one", "the <r3> box")) == "find<p>the <r3> box</p>:<roi>"
    parts = [Text("<p>", True), Text("<r3>"), Text("</p>", True)]
    ids = tiny.encode_parts(parts)
    assert ids[0] == tiny.id("<p>") and ids[-1] == tiny.id("</p>") and tiny.id("<r3>") not in ids


def test_an_empty_goal_or_an_unknown_kind_is_refused(tiny: GromaTokenizer) -> None:
    for text in ("", "  \n"):
        with pytest.raises(ValueError, match="The goal is empty"):
            TINY_TEMPLATE.goal_ids(tiny, "auto", text)
    with pytest.raises(
        ValueError, match="cannot answer goals of kind chat; it was taught the kinds auto, one, all, describe"
    ):
        TINY_TEMPLATE.goal_ids(tiny, "chat", "hello")
    with pytest.raises(ValueError, match="1 wordings for 'one'"):
        TINY_TEMPLATE.goal_ids(tiny, "one", "box", wording=1)


def test_token_ids_follow_the_base_vocabulary_in_order(llama: GromaTokenizer, tiny: GromaTokenizer) -> None:
    assert [llama.id(token) for token in ADDED_TOKENS] == list(range(32000, 32014))
    assert (llama.region_id(0), llama.region_id(99), len(llama)) == (32014, 32113, 32114)
    assert (tiny.region_id(31), len(tiny)) == (tiny.base + 45, tiny.base + 46)
    assert (tiny.region_index(tiny.region_id(7)), tiny.region_index(tiny.id("</roi>"))) == (7, None)
    for wrong in (32, -1):
        with pytest.raises(ValueError, match="names regions 0 to 31"):
            tiny.region_id(wrong)
    with pytest.raises(ValueError, match="'<r32>' is not a special token"):
        tiny.id("<r32>")
    with pytest.raises(ValueError, match="num_new_token is 14"):
        GromaTokenizer(tiny.model, 14)


def test_the_prefix_expands_to_image_slots_and_region_pairs(tiny: GromaTokenizer) -> None:
    prefix = TINY_TEMPLATE.prefix_ids(tiny)
    assert prefix == [1, tiny.id("<image>"), tiny.id("<region>"), 2]
    out = expand(tiny, prefix, image_tokens=3, regions=2)
    image, region = tiny.id("<image>"), tiny.id("<region>")
    assert out.ids.tolist() == [
        1,
        image,
        image,
        image,
        tiny.region_id(0),
        region,
        tiny.region_id(1),
        region,
        2,
    ]
    assert out.image_slots.tolist() == [1, 2, 3]
    assert out.region_slots.tolist() == [5, 7]
    assert out.ids[out.region_slots - 1].tolist() == [tiny.region_id(0), tiny.region_id(1)]
    assert out.feature_slots.dtype == np.int64 and len(out.feature_slots) == 0


def test_the_published_prompt_has_the_specified_length(llama: GromaTokenizer) -> None:
    ids = PUBLISHED["rec"]["ids"]
    assert len(expand(llama, ids, 256, 100).ids) == 548
    assert len(expand(llama, ids[:72], 256, 100).ids) == 526


def test_a_referred_region_is_named_and_shown(tiny: GromaTokenizer) -> None:
    goal = TINY_TEMPLATE.goal_ids(tiny, "describe")
    out = expand(tiny, goal, 9, 4, referred=[2])
    assert [i for i in out.ids if i >= tiny.base] == [
        tiny.id("<roi>"),
        tiny.region_id(2),
        tiny.id("</roi>"),
        tiny.id("<refer_feat>"),
    ]
    assert out.ids[out.feature_slots].tolist() == [tiny.id("<refer_feat>")]
    assert out.feature_regions.tolist() == [2]
    with pytest.raises(ValueError, match="1 <refer_box> for 0 referred regions"):
        expand(tiny, goal, 9, 4)
    with pytest.raises(ValueError, match="at most one <image>"):
        expand(tiny, [tiny.id("<image>")] * 2, 9, 4)
    with pytest.raises(ValueError, match="names regions 0 to 31"):
        expand(tiny, [tiny.id("<region>")], 9, 33)


def test_templates_travel_as_json_and_wrong_ones_are_named() -> None:
    for template in (PUBLISHED_TEMPLATE, TINY_TEMPLATE):
        assert PromptTemplate.from_dict(json.loads(json.dumps(template.to_dict()))) == template
    for data, message in (
        ({"goal": "{}"}, "no prefix"),
        ({"prefix": "<image><region>", "quries": {}}, "unknown key 'quries'"),
        ({"prefix": "<region><image>"}, "exactly one <image> and, after it"),
        ({"prefix": "<image><region><region>"}, "exactly one <region>"),
        ({"prefix": "<image><region>", "goal": "USER:"}, "goal frame 'USER:'"),
        ({"prefix": "<image><region>", "queries": {"one": []}}, "list of wordings for 'one'"),
        ({"prefix": "<image><region>", "queries": {"one": "find {}"}}, "list of wordings for 'one'"),
    ):
        with pytest.raises(ValueError, match=message):
            PromptTemplate.from_dict(data)


@pytest.mark.parametrize(
    ("text", "regions", "answer"),
    [
        ("<roi><r7></roi></s>", 10, Answer("", (Span((7,), 0, 0),))),
        ("<roi><r7><r2></roi></s> never read <roi><r1></roi>", 10, Answer("", (Span((7, 2), 0, 0),))),
        ("<roi></roi></s>", 10, Answer("", ())),
        ("<roi><r7><r2></roi>", 5, Answer("", (Span((2,), 0, 0),))),
        ("<roi><r7></roi>", 7, Answer("", ())),
        ("<p>A dog</p><roi><r3></roi> sits.</s>", 4, Answer("A dog sits.", (Span((3,), 0, 5),))),
        (
            "Near <p>a man</p><roi><r0><r1></roi>, <p>two mugs</p><roi><r2></roi> stand.",
            3,
            Answer("Near a man, two mugs stand.", (Span((0, 1), 5, 10), Span((2,), 12, 20))),
        ),
        ("<p>a man</p> and <roi><r0></roi>", 3, Answer("a man and", (Span((0,), 9, 9),))),
        ("<p>a man</p><roi><r9></roi>", 3, Answer("a man", (Span((), 0, 5),))),
        ("<r1><roi><r0>", 3, Answer("", (Span((1,), 0, 0), Span((0,), 0, 0)))),
        ("</p></roi><image>red mug", 3, Answer("red mug", ())),
        ("", 3, Answer("", ())),
    ],
)
def test_answers_are_read_by_the_grammar(
    tiny: GromaTokenizer, text: str, regions: int, answer: Answer
) -> None:
    assert parse_answer(tiny, text, regions) == answer
    assert parse_answer(tiny, tiny.encode_template(text), regions) == answer


def test_an_answer_names_each_region_once_and_its_phrases(tiny: GromaTokenizer) -> None:
    answer = parse_answer(tiny, "<p>a box</p><roi><r4><r1></roi> by <p>a mug</p><roi><r1></roi>", 5)
    assert answer.regions == (4, 1)
    assert [answer.phrase(span) for span in answer.spans] == ["a box", "a mug"]


def test_decoding_with_and_without_special_tokens(tiny: GromaTokenizer) -> None:
    ids = tiny.encode_template("<p>a red box</p><roi><r1></roi> on top.</s>")
    assert tiny.decode(ids) == "<p>a red box</p><roi><r1></roi>on top.</s>"
    assert tiny.decode(ids, skip_special=True) == "a red box on top."
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tiny.decode([len(tiny)])


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("The Red Mug", "the red mug"),
        ("  THE\u00a0RED\tMUG\n of \u201cmine\u201d ", 'the red mug of "mine"'),
        ("the black-ring \u2013 left_most", "the black ring left most"),
        ("the mug\u2019s \ufb01rst side", "the mug's first side"),
        ("<r3>", "<r3>"),
        ("\U0001f34b", "\U0001f34b"),
    ],
)
def test_plain_words_are_read_alike_however_they_are_written(
    tiny: GromaTokenizer, said: str, read: str
) -> None:
    assert plain(said) == read
    assert TINY_TEMPLATE.goal_ids(tiny, "auto", said) == TINY_TEMPLATE.goal_ids(tiny, "auto", read)
    as_written = dataclasses.replace(TINY_TEMPLATE, plain_words=False)
    same = as_written.goal_ids(tiny, "auto", said) == as_written.goal_ids(tiny, "auto", read)
    assert same == (said == read)


def test_plain_words_is_true_or_false() -> None:
    with pytest.raises(ValueError, match="plain_words is 'yes', no true or false"):
        PromptTemplate.from_dict({**TINY_TEMPLATE.to_dict(), "plain_words": "yes"})
