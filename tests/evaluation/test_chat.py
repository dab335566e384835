"""Question files, answer files, and counts of hallucinated and omitted objects against values by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.evaluation.chat import AskedPicture, ChatQuestion, answer_lines, judge, read_questions, table
from groma_ros.evaluation.mentions import KnownObject, Vocabulary, count, read_objects, read_synonyms

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
LEFT, RIGHT, NOWHERE = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0), (200.0, 0.0, 210.0, 10.0)
TRUTH = (KnownObject("dog", LEFT), KnownObject("dog", RIGHT), KnownObject("hot dog", NOWHERE))


def write_lines(path: Path, *entries: Any) -> Path:
    path.write_text(
        "".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in entries)
    )
    return path


def asked(number: int, image: str, text: str = "") -> dict[str, Any]:
    return {"question_id": number, "image": image, "text": text, "category": "detail"}


def test_the_longest_name_wins_and_plurals_count() -> None:
    words = Vocabulary(["dog", "hot dog", "bus", "sky", "wine_glass"])
    assert words.named("Two dogs eat a Hot Dog.") == ("dog", "hot dog")
    assert words.named("buses under skies, two wine glasses; a dogma") == ("bus", "sky", "wine_glass")
    assert Vocabulary([]).named("dog") == ()
    assert Vocabulary(["dog"], {"dog": ["puppy"]}).named("puppies") == ("dog",)
    with pytest.raises(ValueError, match="name the class 'cat', which the truth does not have"):
        Vocabulary(["dog"], {"cat": ["kitten"]})


def test_counts_by_hand() -> None:
    words = Vocabulary(["dog", "hot dog", "cat", "car"])
    # A dog on a dog, the same box once more, a dog where there is none, a cat on a dog, and a phrase without
    # a class.
    spans = [("a dog", [LEFT]), ("the dog", [LEFT, NOWHERE]), ("a cat", [RIGHT]), ("something", [RIGHT])]
    found = count("a dog, the dog and a cat; something", spans, TRUTH, words)
    assert found.mentioned == ("dog", "cat") and found.hallucinated == ("cat",)
    assert found.present == ("dog", "hot dog") and found.missed == ("hot dog",)
    assert (found.pointed, found.right, found.found, found.objects) == (3, 1, 1, 3)


def test_last_class_of_a_phrase_counts() -> None:
    found = count("", [("the dog's car", [LEFT])], (KnownObject("dog", LEFT),), Vocabulary(["dog", "car"]))
    assert (found.pointed, found.right) == (1, 0)


def test_shares_over_answers() -> None:
    picture = AskedPicture(
        "x/1.jpg", (ChatQuestion(2, "x/1.jpg", "what?", "conv"), ChatQuestion(1, "x/1.jpg", "", "detail"))
    )
    span = {"phrase": "a dog", "start": 0, "end": 5, "boxes": [list(LEFT)]}
    records = [
        {"answers": [{"text": "a dog and a cat", "spans": [span]}, {"text": "a hot dog", "spans": []}]}
    ]
    lines = answer_lines("m", [picture], records)
    assert [line["question_id"] for line in lines] == [1, 2] and lines[1]["answer_id"] == "m-2"
    found = judge(lines, {"1.jpg": list(TRUTH)}, Vocabulary(["dog", "hot dog", "cat"]))
    assert found["mentions"] == 3 and found["hallucinated"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["answers_with_hallucination"] == 0.5 and found["missed"] == 0.5
    assert (found["boxes"], found["boxes_right"], found["objects"], found["objects_pointed_at"]) == (
        1,
        1.0,
        6,
        0.1667,
    )
    assert lines[1]["metadata"]["hallucinated"] == ["cat"] and lines[0]["metadata"]["missed"] == ["dog"]


def test_questions_are_grouped_by_picture(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "q.jsonl", asked(1, "a.jpg", "what?"), "", asked(2, "b.jpg"), asked(3, "a.jpg")
    )
    found = {picture.name: [item.number for item in picture.questions] for picture in read_questions(path)}
    assert found == {"a.jpg": [1, 3], "b.jpg": [2]}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            [asked(1, "a.jpg"), {"question_id": 2, "image": "b.jpg"}],
            r"Line 2 of .* is not a question: its text is null and must be a text",
        ),
        (["{"], r"Line 1 of .* is not JSON"),
        ([{**asked(1, "a.jpg"), "question_id": [1]}], r"its question_id is \[1\]"),
        ([], r"holds no questions"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, entries: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_questions(write_lines(tmp_path / "q.jsonl", *entries))


def test_bad_synonyms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"dog": "puppy"}')
    with pytest.raises(ValueError, match="must map each class to a list of words"):
        read_synonyms(tmp_path / "s.json")


def test_descriptions_of_rendered_scenes(
    command: Callable[..., dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    kinds, objects = read_objects(scenes / "annotations.json")
    names = sorted(objects)[:6]
    questions = write_lines(tmp_path / "q.jsonl", *(asked(number, name) for number, name in enumerate(names)))
    common = ("eval", "chat", "--model", TINY, "--images", scenes / "images", "--threads", 1)
    found = command(
        *common, "--data", questions, "--truth", scenes / "annotations.json", "--out", tmp_path / "run"
    )
    truth = found["truth"]
    assert found["questions"] == truth["answers"] == 6 and found["grounded"] == 1.0
    assert truth["objects"] == sum(len(objects[name]) for name in names)
    assert truth["hallucinated"] < 0.25 and truth["missed"] < 0.25 and truth["objects_pointed_at"] > 0.5
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == list(range(6))
    for line in lines:
        assert {"question_id", "prompt", "text", "category", "answer_id", "model_id", "metadata"} <= set(line)
        spans = line["metadata"]["regions"]
        assert all(line["text"][span["start"] : span["end"]] == span["phrase"] for span in spans)
        assert sum(len(Vocabulary(kinds).named(span["phrase"])) for span in spans) >= 3
    assert "pointed at" in table(found)
    synonyms = tmp_path / "synonyms.json"
    synonyms.write_text(json.dumps({"mug": ["cup"]}))
    again = command(
        *common,
        "--data",
        questions,
        "--truth",
        scenes / "annotations.json",
        "--synonyms",
        synonyms,
        "--out",
        tmp_path / "run",
    )
    assert again["truth"]["objects"] == truth["objects"]


def test_model_without_chat_is_rejected(refusal: Callable[..., str], scenes: Path, tmp_path: Path) -> None:
    questions = write_lines(tmp_path / "q.jsonl", asked(1, "000000.jpg", "What is this?"))
    common = ("eval", "chat", "--model", TINY, "--images", scenes / "images", "--data", questions)
    assert "cannot answer goals of kind chat" in refusal(*common)
    assert "give both" in refusal(*common, "--synonyms", questions)


def test_chat_with_and_without_grounding(
    small_model: Path,
    scenes: Path,
    command: Callable[..., dict[str, Any]],
    refusal: Callable[..., str],
    tmp_path: Path,
) -> None:
    """A network of random weights whose template has only grounded chat: the plain question is another
    one."""
    questions = write_lines(tmp_path / "q.jsonl", asked(1, "000000.jpg", "the red mug"))
    common = ("eval", "chat", "--model", small_model, "--images", scenes / "images", "--data", questions)
    found = command(*common, "--out", tmp_path / "run")
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert line["question_id"] == 1 and line["prompt"] == "the red mug" and found["truth"] is None
    assert "cannot answer goals of kind chat" in refusal(*common, "--plain")
