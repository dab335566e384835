"""Descriptions, listings and chat: text and grounded regions."""

import numpy as np
import pytest

from groma_ros.boxes import box_iou
from groma_ros.grounding.conversation import mention_scores, text_spans
from groma_ros.grounding.decoding import Written
from groma_ros.grounding.grounder import Grounder
from groma_ros.tokenization.prompts import parse_answer
from groma_ros.types import Goal, Scene


def test_a_region_is_described_the_same_alone_and_among_others(grounder: Grounder, scene: Scene) -> None:
    together = grounder.describe(scene, [0, 3, 5])
    assert together == [grounder.describe(scene, [index])[0] for index in (0, 3, 5)]
    assert len(set(together)) == 3


def test_describing_a_box_of_the_scene_points_at_it(grounder: Grounder, scene: Scene) -> None:
    boxes = np.array([[5, 6, 50, 40], [30, 2, 60, 30]], np.float32)
    answer = grounder.ground(scene, [Goal("", "describe", regions=boxes)])[0]
    assert len(answer.text.split("\n")) >= 2
    assert len(answer.detections) == 2
    found = np.array([item.box for item in answer.detections], np.float32)
    np.testing.assert_allclose(box_iou(found, boxes).max(0), 1, atol=1e-4)


@pytest.mark.parametrize(
    "goal", [Goal("", "describe"), Goal("what is on the table?", "chat")], ids=["list", "chat"]
)
def test_free_answers_mention_only_regions_of_the_scene(grounder: Grounder, scene: Scene, goal: Goal) -> None:
    answer = grounder.ground(scene, [goal])[0]
    mentioned = {region for span in answer.spans for region in span.regions}
    assert {item.region for item in answer.detections} == mentioned
    assert all(0 <= region < len(scene.boxes) for region in mentioned)
    assert all(0 < item.score <= 1 for item in answer.detections)
    assert all(answer.text[span.start : span.end] == span.phrase for span in answer.spans)


def test_phrases_are_read_with_their_regions(grounder: Grounder) -> None:
    tokenizer = grounder._tokenizer
    ids = tokenizer.encode_template("<p>red mug</p><roi><r2></roi> and <p>boxes</p><roi><r0><r9></roi>")
    answer = parse_answer(tokenizer, ids, 5)
    spans = text_spans(answer)
    assert [(span.phrase, span.regions) for span in spans] == [("red mug", (2,)), ("boxes", (0,))]
    assert [answer.text[span.start : span.end] for span in spans] == ["red mug", "boxes"]


def test_a_mention_scores_as_its_surest_naming(grounder: Grounder) -> None:
    tokenizer = grounder._tokenizer
    ids = (tokenizer.region_id(2), tokenizer.id("</roi>"), tokenizer.region_id(2), tokenizer.region_id(0))
    assert mention_scores(tokenizer, Written(ids, (0.25, 1.0, 0.75, 0.5))) == {2: 0.75, 0: 0.5}
