"""`groma eval chat`: answers and their regions for a judge."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import replacing
from groma_ros.commands.run_options import (
    add_picture_arguments,
    add_run_arguments,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.chat import ANSWERS, Converse, answer_lines, judge, read_questions, table
from groma_ros.evaluation.mentions import Vocabulary, read_objects, read_synonyms
from groma_ros.evaluation.statistics import rounded
from groma_ros.evaluation.workers import run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval chat`."""
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="JSON lines of question_id, image, text, category (qa90_questions.jsonl)",
    )
    add_picture_arguments(parser, drawn=False, resize="demo")
    parser.add_argument(
        "--truth",
        type=Path,
        help="COCO-style instances of the pictures: count hallucinated and missed objects",
    )
    parser.add_argument(
        "--synonyms", type=Path, help="JSON object from a class of --truth to more words for it"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="ask the bare question, as the original's evaluation did, without [grounding]",
    )


def run(args: argparse.Namespace) -> int:
    """`groma eval chat` with the options of `add_arguments`; returns the exit status."""
    pictures = read_questions(args.data)[: args.limit]
    truth = read_objects(args.truth) if args.truth else None
    if args.synonyms and truth is None:
        raise ValueError("--synonyms are words for the classes of --truth; give both.")
    vocabulary = (
        Vocabulary(truth[0], read_synonyms(args.synonyms) if args.synonyms else None) if truth else None
    )
    choice = model_choice(args)
    settings = {"task": "chat", "data": str(args.data.resolve()), "plain": args.plain}
    records = run_evaluation(
        Converse(args.images, not args.plain), pictures, "picture", choice, plan(args), settings
    )
    name = choice.bundle().name
    lines = answer_lines(name, pictures, records)
    judged = judge(lines, truth[1], vocabulary) if truth and vocabulary else None
    document = {
        "model": name,
        "resize": choice.bundle().image.resize,
        "pictures": len(pictures),
        **_summary(lines),
        "truth": judged,
    }
    if args.out:
        with replacing(args.out / ANSWERS) as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    return finish(args, document, table(document))


def _summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    spans = [[span for span in line["metadata"]["regions"] if span["boxes"]] for line in lines]
    return {
        "questions": len(lines),
        "words": rounded(sum(len(line["text"].split()) for line in lines) / len(lines)),
        "grounded": rounded(sum(bool(item) for item in spans) / len(lines)),
        "phrases": rounded(sum(map(len, spans)) / len(lines)),
    }
