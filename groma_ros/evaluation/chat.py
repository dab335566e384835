"""`groma eval chat`: answers with grounded regions to questions about pictures, in the format of LLaVA-COCO's
judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.coco_files import as_key, find_picture
from groma_ros.errors import quoted
from groma_ros.evaluation.mentions import KnownObject, MentionCounts, Vocabulary, count
from groma_ros.evaluation.statistics import figure, rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.json_files import load_lines
from groma_ros.types import Frame, Goal

ANSWERS = "answers.jsonl"
MAX_TOKENS = 1024


@dataclass(frozen=True)
class ChatQuestion:
    """A line of a question file."""

    number: Any
    """Its `question_id`."""
    image: str
    """File name of the picture."""
    text: str
    """The question; if empty, a description of the whole picture is requested."""
    category: str


@dataclass(frozen=True)
class AskedPicture:
    """A picture with all questions about it."""

    name: str
    questions: tuple[ChatQuestion, ...]


@dataclass(frozen=True)
class Converse:
    """Answer the questions about a picture."""

    images: Path
    """Folder of the pictures."""
    grounded: bool
    """Ask the model to ground the objects it mentions, if it can."""

    def __call__(self, grounder: Grounder, picture: AskedPicture) -> Record:
        grounder.max_answer_tokens, grounder.ground_chat = MAX_TOKENS, self.grounded
        scene = grounder.perceive(Frame(read_annotated(find_picture(self.images, picture.name))))
        goals = [Goal(item.text, "chat" if item.text else "describe") for item in picture.questions]
        answers = []
        for found in grounder.ground(scene, goals):
            spans = [
                {
                    "phrase": span.phrase,
                    "start": span.start,
                    "end": span.end,
                    "boxes": [
                        [round(float(value), 2) for value in scene.boxes[region]] for region in span.regions
                    ],
                }
                for span in found.spans
            ]
            answers.append({"text": found.text, "spans": spans})
        return {"answers": answers}


def read_questions(path: Path) -> list[AskedPicture]:
    """Read a JSON-lines file (question_id, image, text, category), grouped by picture. Raises ValueError
    naming a wrong line."""
    by_picture: dict[str, list[ChatQuestion]] = {}
    for number, entry in load_lines(path):
        asked = _question(f"Line {number} of {path} is not a question", entry)
        by_picture.setdefault(asked.image, []).append(asked)
    if not by_picture:
        raise ValueError(f"{path} holds no questions.")
    return [AskedPicture(name, tuple(items)) for name, items in by_picture.items()]


def _question(wrong: str, entry: Any) -> ChatQuestion:
    if not isinstance(entry, dict):
        raise ValueError(f"{wrong}: it is {quoted(entry)} and must be an object.")
    number, image, text = (entry.get(name) for name in ("question_id", "image", "text"))
    if as_key(number) is None:
        raise ValueError(
            f"{wrong}: its question_id is {quoted(number)} and must be a whole number or a text."
        )
    if not isinstance(image, str) or not image:
        raise ValueError(f"{wrong}: its image is {quoted(image)} and must be the name of a file.")
    if not isinstance(text, str):
        raise ValueError(f"{wrong}: its text is {quoted(text)} and must be a text.")
    return ChatQuestion(number, image, text.strip(), str(entry.get("category", "")))


def answer_lines(
    model: str, pictures: Sequence[AskedPicture], records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Answers in the format of a judge's input, sorted by question number if those are numbers; regions are
    added to the metadata."""
    lines = []
    for picture, record in zip(pictures, records, strict=True):
        for asked, found in zip(picture.questions, record["answers"], strict=True):
            line = {
                "question_id": asked.number,
                "prompt": asked.text,
                "text": found["text"],
                "category": asked.category,
            }
            more = {"answer_id": f"{model}-{asked.number}", "model_id": model, "image": asked.image}
            lines.append({**line, **more, "metadata": {"regions": found["spans"]}})
    numbered = all(isinstance(line["question_id"], (int, float)) for line in lines)
    return sorted(lines, key=lambda line: line["question_id"]) if numbered else lines


def judge(
    lines: Sequence[Mapping[str, Any]], objects: Mapping[str, Sequence[KnownObject]], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Count hallucinated and omitted objects in answers about pictures with known truth; also adds those of
    each answer to its metadata."""
    counts: list[MentionCounts] = []
    for line in lines:
        name = line["image"].rsplit("/", 1)[-1]
        if name in objects:
            spans = [
                (span["phrase"], [tuple(box) for box in span["boxes"]])
                for span in line["metadata"]["regions"]
            ]
            found = count(line["text"], spans, objects[name], vocabulary)
            line["metadata"].update(hallucinated=list(found.hallucinated), missed=list(found.missed))
            counts.append(found)
    mentioned, present = (
        sum(len(item.mentioned) for item in counts),
        sum(len(item.present) for item in counts),
    )
    hallucinated, missed = (
        sum(len(item.hallucinated) for item in counts),
        sum(len(item.missed) for item in counts),
    )
    pointed, right, there = (
        sum(getattr(item, name) for item in counts) for name in ("pointed", "right", "objects")
    )
    return {
        "answers": len(counts),
        "mentions": mentioned,
        "hallucinated": _share(hallucinated, mentioned),
        "answers_with_hallucination": _share(sum(bool(item.hallucinated) for item in counts), len(counts)),
        "missed": _share(missed, present),
        "boxes": pointed,
        "boxes_right": _share(right, pointed),
        "objects": there,
        "objects_pointed_at": _share(right, there),
    }


def _share(part: int, whole: int) -> float | None:
    return rounded(part / whole) if whole else None


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{document['model']}: {document['questions']} questions about {document['pictures']} pictures",
        f"words an answer         {figure(document['words'], 1)}",
        f"answers with regions    {figure(document['grounded'])}   phrases with regions an answer "
        f"{figure(document['phrases'], 1)}",
    ]
    if document["truth"]:
        said = document["truth"]
        lines += [
            f"classes named           {said['mentions']}   not in the picture "
            f"{figure(said['hallucinated'])}   "
            f"answers with such {figure(said['answers_with_hallucination'])}",
            f"classes missed          {figure(said['missed'])}",
            f"boxes                   {said['boxes']}   on an object of the class named "
            f"{figure(said['boxes_right'])}",
            f"objects                 {said['objects']}   pointed at {figure(said['objects_pointed_at'])}",
        ]
    return "\n".join(lines)
