"""The batched, prefix-sharing grounder against the plain network, and validation of goals."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groma_ros.grounding.grounder import Grounder
from groma_ros.model.groma import Groma
from groma_ros.runtime.bundle import TOKENIZER, Bundle
from groma_ros.runtime.torch import TorchLanguage, TorchVision, load_model
from groma_ros.tokenization.prompts import expand
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text
from groma_ros.types import Frame, Goal, GoalKind, Grounding, Scene
from tests.small import GOALS, TEMPLATE, blocks

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(small_model: Path) -> Groma:
    return load_model(Bundle.load(small_model))


@pytest.fixture(scope="module")
def tokenizer(small_model: Path) -> GromaTokenizer:
    return GromaTokenizer.load(small_model / TOKENIZER, 30)


@pytest.fixture
def strict(grounder: Grounder) -> Iterator[Grounder]:
    """The grounder while it asks for more presence than some goals have."""
    grounder.min_presence = 0.9
    yield grounder
    grounder.min_presence = 0.0


def greedy(
    model: Groma, tokenizer: GromaTokenizer, scene: Scene, text: str
) -> tuple[list[int], list[float], float]:
    """Constrained greedy generation by full passes over one whole prompt: regions, their probabilities, first
    P(</roi>)."""
    ids = TEMPLATE.prefix_ids(tokenizer) + TEMPLATE.goal_ids(tokenizer, "auto", text)
    count, stop = len(scene.boxes), tokenizer.id("</roi>")
    opened = expand(tokenizer, ids, len(scene.image_tokens), count)
    embeddings = model.embed(torch.from_numpy(opened.ids)).clone()
    embeddings[opened.image_slots] = torch.from_numpy(scene.image_tokens)
    embeddings[opened.region_slots] = torch.from_numpy(scene.region_tokens)
    allowed = [*(tokenizer.region_id(index) for index in range(count)), stop]
    chosen: list[int] = []
    chances: list[float] = []
    first_stop = 0.0
    while True:
        with torch.no_grad():
            logits = model.logits(model.hidden(embeddings[None])[0, -1])[allowed].double()
        logits[chosen] = -torch.inf
        chance = logits.softmax(0)
        if not chosen:
            first_stop = float(chance[-1])
            best = int(chance[:-1].argmax())
        else:
            best = int(chance.argmax())
        if best == count:
            return chosen, chances, first_stop
        chosen.append(best)
        chances.append(float(chance[best]))
        embeddings = torch.cat([embeddings, model.embed(torch.tensor([allowed[best]]))])


def same(a: Grounding, b: Grounding) -> None:
    assert [item.region for item in a.detections] == [item.region for item in b.detections]
    np.testing.assert_allclose(
        [i.score for i in a.detections], [i.score for i in b.detections], atol=TOLERANCE
    )
    np.testing.assert_allclose([a.present, a.margin], [b.present, b.margin], atol=TOLERANCE)


def test_a_goal_is_cut_into_tokens_once(grounder: Grounder, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []
    encode = GromaTokenizer.encode_parts

    def counted(self: GromaTokenizer, parts: Sequence[Text], start: bool = False) -> list[int]:
        cut.append(parts[1].text)
        return encode(self, parts, start)

    monkeypatch.setattr(GromaTokenizer, "encode_parts", counted)
    goals = [Goal("a goal of this test"), Goal("another of it", "all"), Goal("a goal of this test", "all")]
    for seed in (1, 2):
        grounder.ground(Frame(blocks(seed)), goals)
    assert cut == [goal.text for goal in goals]


def test_answers_equal_constrained_greedy_generation(
    grounder: Grounder, model: Groma, tokenizer: GromaTokenizer, scene: Scene
) -> None:
    answers = grounder.ground(scene, [Goal(text) for text in GOALS])
    for text, answer in zip(GOALS, answers, strict=True):
        regions, chances, stop = greedy(model, tokenizer, scene, text)
        assert [item.region for item in answer.detections] == regions, text
        np.testing.assert_allclose([item.score for item in answer.detections], chances, atol=TOLERANCE)
        assert answer.present == pytest.approx(1 - stop, abs=TOLERANCE)
    # The comparison says something only if answers differ, and differ in length.
    assert len({tuple(item.region for item in answer.detections) for answer in answers}) >= 5
    assert len({len(answer.detections) for answer in answers}) >= 3


def test_the_one_step_answer_is_the_first_of_greedy_generation(
    grounder: Grounder, model: Groma, tokenizer: GromaTokenizer, scene: Scene
) -> None:
    for answer in grounder.ground(scene, [Goal(text, "one") for text in GOALS]):
        regions, chances, _ = greedy(model, tokenizer, scene, answer.goal.text)
        assert [item.region for item in answer.detections] == regions[:1]
        assert answer.detections[0].score == pytest.approx(chances[0], abs=TOLERANCE)


def test_ten_goals_at_once_equal_ten_goals_one_by_one(grounder: Grounder, scene: Scene) -> None:
    kinds: list[GoalKind] = ["auto", "one", "all"] * 4
    goals = [Goal(text, kind) for text, kind in zip(GOALS, kinds, strict=False)]
    assert len(goals) == 10
    for alone, goal in zip(grounder.ground(scene, goals), goals, strict=True):
        assert alone.goal is goal
        same(alone, grounder.ground(scene, [goal])[0])


def test_a_kept_prefix_gives_the_answers_of_a_fresh_one(
    grounder: Grounder, scene: Scene, small_model: Path
) -> None:
    goals = [Goal(text) for text in GOALS[:4]]
    other = grounder.perceive(Frame(blocks(2)))
    first = grounder.ground(scene, goals)
    assert grounder._prefix(scene, 1) is grounder._prefix(scene, 1)
    elsewhere = grounder.ground(other, goals)
    again = grounder.ground(scene, goals)
    fresh = Grounder.load(small_model, min_presence=0.0).ground(scene, goals)
    for one, two, three in zip(first, again, fresh, strict=True):
        same(one, two)
        same(one, three)
    assert [g.margin for g in elsewhere] != [g.margin for g in first]


def test_the_prefix_is_prefilled_once_for_all_goals_of_a_scene(small_model: Path) -> None:
    counted: list[int] = []

    class Counting(TorchLanguage):
        def prefill(self, embeddings: NDArray[Any]) -> Any:
            counted.append(len(embeddings))
            return super().prefill(embeddings)

    bundle = Bundle.load(small_model)
    network = load_model(bundle)
    tokenizer = GromaTokenizer.load(bundle.file(TOKENIZER), 30)
    grounder = Grounder(
        TorchVision(network, bundle.image), Counting(network), tokenizer, TEMPLATE, min_presence=0.0
    )
    scene = grounder.perceive(Frame(blocks(1)))
    grounder.ground(scene, [Goal(text) for text in GOALS])
    grounder.ground(scene, [Goal(GOALS[0], "one"), Goal("", "describe")])
    assert counted == [len(TEMPLATE.prefix_ids(tokenizer)) - 2 + 16 + 2 * len(scene.boxes)]


def test_the_same_question_twice_gives_the_same_answer(grounder: Grounder) -> None:
    goals = [Goal(text) for text in GOALS[:3]]
    a, b = (grounder.ground(Frame(blocks(3)), goals) for _ in range(2))
    assert [g.detections for g in a] == [g.detections for g in b] and [g.present for g in a] == [
        g.present for g in b
    ]


def test_below_the_presence_a_goal_is_absent(strict: Grounder, scene: Scene) -> None:
    answers = strict.ground(scene, [Goal(text) for text in GOALS])
    absent = [answer for answer in answers if answer.present < 0.9]
    assert 1 <= len(absent) < len(answers)
    assert all(answer.detections == () for answer in absent)
    assert all(answer.detections for answer in answers if answer.present >= 0.9)


def test_a_close_choice_of_one_is_ambiguous_and_names_the_runners_up(
    grounder: Grounder, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = [Goal("the red mug", "one"), Goal("the red mug", "all")]
    assert [item.status for item in grounder.ground(scene, goals)] == ["present", "present"]
    monkeypatch.setattr(grounder, "min_margin", 1.0)
    one, every = grounder.ground(scene, goals)
    assert (one.status, every.status, every.alternatives) == ("ambiguous", "present", ())
    named = [item.region for item in (*one.detections, *one.alternatives)]
    assert sorted(named) == list(range(len(scene.boxes))) and len(one.detections) == 1
    scores = [item.score for item in (*one.detections, *one.alternatives)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[1] == pytest.approx(one.margin, abs=TOLERANCE)
    monkeypatch.setattr(grounder, "min_margin", one.margin * 0.99)
    assert grounder.ground(scene, goals[:1])[0].status == "present"


def test_detections_below_the_goals_score_are_left_out(grounder: Grounder, scene: Scene) -> None:
    everything, high = grounder.ground(scene, [Goal(GOALS[1]), Goal(GOALS[1], min_score=0.5)])
    kept = [item.region for item in everything.detections if item.score >= 0.5]
    assert [item.region for item in high.detections] == kept
    assert 0 < len(kept) < len(everything.detections)


def test_boxes_of_detections_are_those_of_the_scene(grounder: Grounder, scene: Scene) -> None:
    for item in grounder.ground(scene, [Goal(GOALS[0])])[0].detections:
        assert item.box == pytest.approx(scene.boxes[item.region].tolist())
        assert all(type(value) is float for value in (*item.box, item.score))


def test_membership_covers_every_region(grounder: Grounder, scene: Scene) -> None:
    for answer in grounder.answers(scene, [Goal(text) for text in GOALS[:3]]):
        assert answer.membership.shape == (len(scene.boxes),)
        assert ((answer.membership >= 0) & (answer.membership <= 1)).all()
        for region, score in zip(answer.regions, answer.scores, strict=True):
            assert answer.membership[region] >= score - 1e-12


def test_no_goals_no_groundings(grounder: Grounder, scene: Scene) -> None:
    assert grounder.ground(scene, []) == []


@pytest.mark.parametrize("corner", [(1000.0, 0.0), (0.0, 1000.0), (-50.0, 0.0), (0.0, -50.0)])
def test_a_user_region_outside_the_image_is_refused(
    grounder: Grounder, scene: Scene, corner: tuple[float, float]
) -> None:
    x, y = corner
    goal = Goal("", "describe", regions=np.array([[1, 1, 9, 9], [x, y, x + 20, y + 20]], np.float32))
    with pytest.raises(ValueError, match=rf"lies outside the image of {scene.width}x{scene.height} pixels"):
        grounder.ground(scene, [goal])


def test_user_regions_can_be_the_answer(grounder: Grounder, scene: Scene) -> None:
    box = np.array([[5, 6, 50, 40]], np.float32)
    answers = grounder.ground(scene, [Goal(GOALS[1], regions=box), Goal(GOALS[1])])
    boxes = {item.box for item in answers[0].detections}
    assert any(found == pytest.approx((5, 6, 50, 40), abs=1e-3) for found in boxes)
    same(answers[1], grounder.ground(scene, [Goal(GOALS[1])])[0])


def special_ids(tokenizer: GromaTokenizer, ids: Sequence[int]) -> list[int]:
    return [
        token for token in ids if token >= tokenizer.base or token in (tokenizer.bos_id, tokenizer.eos_id)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<r3>",
        "</s>",
        "<image>",
        "<region>",
        "the <roi><r1></roi> mug",
        "[grounding]",
        "<unk><s>",
        "🟥🫖 vor dem 🥣",
        "красная кружка",
        "赤いマグカップ",
        "الكوب الأحمر",
        "a\tred\nmug",
        "\u2581mug",
        "\x00\x07",
        "a" * 100,
    ],
)
def test_text_is_only_ever_text(
    grounder: Grounder, tokenizer: GromaTokenizer, scene: Scene, text: str
) -> None:
    usual = special_ids(tokenizer, TEMPLATE.goal_ids(tokenizer, "auto", "mug"))
    assert special_ids(tokenizer, TEMPLATE.goal_ids(tokenizer, "auto", text)) == usual
    answer = grounder.ground(scene, [Goal(text)])[0]
    assert answer.goal.text == text and 0 <= answer.present <= 1


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        (Goal(""), "The goal is empty"),
        (Goal(" \n\t "), "The goal is empty"),
        (Goal("", "chat"), "The goal is empty"),
        (Goal("x" * 10_000), "The goal has 10000 characters; the limit is 1000"),
        (Goal("🫖" * 200), r"has \d+ tokens; the limit is 128\. Shorten"),
        (Goal("the mug \ud83d"), "bytes that are not text"),
        (Goal("mug", "some"), "The goal kind 'some' is unknown"),  # type: ignore[arg-type]
        (Goal("mug", min_score=1.5), "min_score is 1.5"),
        (Goal("mug", min_score=float("nan")), "min_score is nan"),
        (Goal("mug", min_score="x"), "min_score is 'x' and must be a number from 0 to 1"),  # type: ignore[arg-type]
        (Goal("mug", min_score=None), "min_score is null and must be a number"),  # type: ignore[arg-type]
        (Goal(5), "The goal's text is 5 and must be a text"),  # type: ignore[arg-type]
        (Goal("mug", ["all"]), "The goal kind .* is unknown"),  # type: ignore[arg-type]
        (Goal("mug", regions=[[1, 2, 3, "x"]]), "four numbers"),  # type: ignore[arg-type]
        (Goal("mug", regions=[[1, 2, 3], [4]]), "four numbers"),  # type: ignore[arg-type]
        (Goal("mug", regions=np.zeros((2, 3), np.float32)), "four numbers"),
        (Goal("mug", regions=np.array([[9, 9, 3, 12]], np.float32)), "is not a box"),
        (Goal("mug", regions=np.array([[0, 0, np.inf, 12]], np.float32)), "is not a box"),
    ],
)
def test_goals_that_cannot_be_asked(grounder: Grounder, scene: Scene, goal: Goal, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grounder.check(goal)
    with pytest.raises(ValueError, match=sentence):
        grounder.ground(scene, [Goal("the red mug"), goal])
    assert len(grounder.ground(scene, [Goal("the red mug")])) == 1


@pytest.mark.parametrize(
    ("goals", "sentence"),
    [
        ([5], "^A goal is 5 and must be a text or a Goal, e.g. 'the red mug'.$"),
        ([b"x"], "^A goal is b'x' and must be a text or a Goal"),
        (b"mug", "^A goal is b'mug' and must be a text or a Goal"),
        (["mug", None], "^A goal is null and must be a text or a Goal"),
        (None, "^The goals are null; give a text, a Goal or a list of them"),
        (5, "^The goals are 5; give a text"),
    ],
)
def test_what_is_no_goal(grounder: Grounder, scene: Scene, goals: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grounder.ground(scene, goals)


def test_a_network_that_gives_no_numbers_is_refused_and_does_not_go_on_forever(
    small_model: Path, scene: Scene
) -> None:
    bundle = Bundle.load(small_model)
    network = load_model(bundle)
    network.llm.model.norm.weight.fill_(torch.nan)
    tokenizer = GromaTokenizer.load(bundle.file(TOKENIZER), 30)
    grounder = Grounder(TorchVision(network, bundle.image), TorchLanguage(network), tokenizer, TEMPLATE)
    with pytest.raises(ValueError, match="The model's answer is not a number"):
        grounder.ground(scene, [Goal("all the boxes")])


def test_a_kind_the_model_was_not_taught(small_model: Path, tmp_path: Path) -> None:
    from tests.small import write_small_bundle

    only = {**TEMPLATE.to_dict(), "queries": {"auto": ["find <p>{}</p>"]}}
    taught_little = Grounder.load(write_small_bundle(tmp_path / "little", prompt=only))
    assert taught_little.can("auto") and not taught_little.can("describe")
    with pytest.raises(ValueError, match="it was taught the kinds auto. Use another"):
        taught_little.check(Goal("what is this?", "chat"))
