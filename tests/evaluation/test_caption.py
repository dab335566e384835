"""Caption scores against hand-computed values and the field's own tool, and the command on rendered
scenes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.evaluation.caption import cider, exact, read_regions, report, rouge_l, table, words
from groma_ros.simulation.dataset import load_dataset
from tests.evaluation.published_forms import xywh

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
TEXTS = (
    "A red mug on the table.",
    "a man's hat",
    "two dogs that don't run in the park",
    "the blue box",
    "a very long description of a small red mug beside a blue box",
)
REFERENCES = (
    ("a red mug", "red mug on a wooden table"),
    ("the man's black hat", "a hat"),
    ("two brown dogs running in a park",),
    ("a green ball",),
    ("a red mug", "small red mug next to the blue box", "mug"),
)
# What cider and rouge of pycocoevalcap 1.2 give for these words.
FIELD_CIDER = (3.08940382, 2.06536275, 1.33852812, 0.0, 0.63672384)
FIELD_ROUGE = (0.82993197, 0.87980769, 0.5115304, 0.0, 0.6039604)


def test_words_are_tokenized_like_the_penn_treebank() -> None:
    assert words("A man's well-known hat, don't ask!") == (
        "a",
        "man",
        "'s",
        "well-known",
        "hat",
        "do",
        "n't",
        "ask",
    )
    assert words("  ...  ") == ()


def test_cider_and_rouge_equal_those_of_the_fields_tool() -> None:
    assert cider(TEXTS, REFERENCES) == pytest.approx(FIELD_CIDER, abs=1e-6)
    assert [rouge_l(*pair) for pair in zip(TEXTS, REFERENCES, strict=True)] == pytest.approx(
        FIELD_ROUGE, abs=1e-6
    )


def test_cider_by_hand() -> None:
    # Two items with no word in common: of one-word texts only the first of four cosines is 1, of equal
    # four-word texts all are.
    assert cider(["red", "a b c d"], [["red"], ["a b c d"]]) == pytest.approx([2.5, 10])
    # Words that every item's references hold weigh nothing.
    assert cider(["mug", "mug"], [["mug"], ["mug"]]) == [0, 0]
    assert cider([], []) == []


def test_rouge_by_hand() -> None:
    # Three of four words in order: precision 3/4; recall 3/3.
    assert rouge_l("a red old mug", ["a red mug"]) == pytest.approx((1 + 1.44) * 0.75 / (1 + 1.44 * 0.75))
    assert (
        rouge_l("", ["a"]) == 0
        and rouge_l("b", ["a"]) == 0
        and rouge_l("mug a", ["a mug"]) == pytest.approx(0.5)
    )


def test_exactness_ignores_case_and_stops() -> None:
    assert exact("A red mug.", ["the mug", "a red mug"]) and not exact("a red mugs", ["a red mug"])


def test_table_shows_the_papers_figure() -> None:
    found = report("vg", TEXTS, REFERENCES)
    assert found["cider"] == {"measured": 142.6, "paper": 158.4, "difference": -15.8}
    assert found["exact"] == 0 and "158.40" in table({"model": "m", "pictures": 1, **found})
    assert report("", [], [])["cider"]["measured"] is None


@pytest.fixture(scope="module")
def described(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as Visual Genome's test file: an image entry a region, its annotation with the words."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in load_dataset(scenes)[:4]:
        for item in record.objects:
            number = len(images)
            article = "an" if item.colour[0] in "aeiou" else "a"
            images.append(
                {"id": number, "file_name": record.image.name, "width": record.width, "height": record.height}
            )
            caption = f"{article.capitalize()} {item.colour} {item.kind}"
            place = {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": xywh(item.box),
                "area": item.area,
            }
            annotations.append({**place, "caption": caption})
    path = tmp_path_factory.mktemp("vg") / "vg_test.json"
    path.write_text(
        json.dumps(
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        )
    )
    return path


def test_equal_boxes_are_one_region_with_several_references(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    rows = [
        (1, [0, 0, 5, 5], "x"),
        (1, [0, 0, 5, 5], "y"),
        (1, [1, 0, 5, 5], "z"),
        (2, [0, 0, 5, 5], "w"),
        (2, [0, 0, 0.5, 5], "thin"),
    ]
    annotations = [{"image_id": image, "bbox": box, "caption": caption} for image, box, caption in rows]
    (tmp_path / "x.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (picture,) = read_regions(tmp_path / "x.json")
    assert [(region.image, region.references) for region in picture.regions] == [
        (1, ("x", "y")),
        (1, ("z",)),
        (2, ("w",)),
    ]
    (tmp_path / "x.json").write_text(
        json.dumps({"images": images, "annotations": [{"image_id": 1, "bbox": [0, 0, 5, 5]}]})
    )
    with pytest.raises(ValueError, match="has the caption null and must have a text"):
        read_regions(tmp_path / "x.json")


def test_the_command_describes_true_boxes(
    command: Callable[..., dict[str, Any]], scenes: Path, described: Path, tmp_path: Path
) -> None:
    common = (
        "eval",
        "caption",
        "--model",
        TINY,
        "--data",
        described,
        "--images",
        scenes / "images",
        "--threads",
        1,
    )
    found = command(*common, "--out", tmp_path)
    results = json.loads((tmp_path / "captions.json").read_text())
    assert len(results) == found["regions"] == len(json.loads(described.read_text())["annotations"])
    assert {item["image_id"] for item in results} == set(range(len(results)))
    assert found["exact"] > 0.8 and found["rouge_l"] > 0.85 and found["cider"]["measured"] > 200
    assert found["cider"]["paper"] is None


def test_model_without_the_query_is_rejected(
    refusal: Callable[..., str], scenes: Path, described: Path
) -> None:
    said = refusal(
        "eval",
        "caption",
        "--model",
        TINY,
        "--data",
        described,
        "--images",
        scenes / "images",
        "--dataset",
        "refcocog",
    )
    assert "cannot answer goals of kind describe_in_detail" in said
