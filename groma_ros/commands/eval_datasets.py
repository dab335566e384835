"""`groma eval lvis-ground`, `caption` and `chat`: evaluations on published data sets."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import replacing
from groma_ros.commands.run_options import (
    Subcommand,
    add_picture_arguments,
    add_run_arguments,
    described,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation import caption, chat, lvis_ground
from groma_ros.evaluation.caption import CAPTIONS, KINDS, Describe, read_regions
from groma_ros.evaluation.chat import ANSWERS, Converse, answer_lines, judge, read_questions
from groma_ros.evaluation.lvis_ground import MOST_BOXES, AskClasses, average_recall, read_classes
from groma_ros.evaluation.mentions import Vocabulary, read_objects, read_synonyms
from groma_ros.evaluation.published_figures import LVIS_GROUND as PUBLISHED_RECALL
from groma_ros.evaluation.published_figures import beside
from groma_ros.evaluation.statistics import rounded
from groma_ros.evaluation.workers import run_evaluation


def _add_lvis_ground_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="annotations in the format of LVIS-Ground (lvis_test.json) or COCO",
    )
    add_picture_arguments(parser)
    parser.add_argument(
        "--most",
        type=int,
        default=MOST_BOXES,
        help=f"maximum number of boxes per answer, 0 for all (default {MOST_BOXES}, as in the original)",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the data is LVIS-Ground: show the paper's figures for comparison",
    )


def _run_lvis_ground(args: argparse.Namespace) -> int:
    data, pictures = read_classes(args.data)
    pictures = pictures[: args.limit]
    choice = dataclasses.replace(model_choice(args), min_presence=0.0)  # every requested class is present
    work = AskClasses(args.images, args.seed, args.most)
    settings = {"task": "lvis-ground", "data": str(args.data.resolve()), "seed": args.seed, "most": args.most}
    records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
    images = [picture.image for picture in pictures]
    recall = average_recall(data, images, [item for record in records for item in record["found"]])
    known: Mapping[str, float] = PUBLISHED_RECALL if args.paper else {}
    targets = [
        entry
        for entry in data["annotations"]
        if entry["image_id"] in set(images) and not entry.get("iscrowd", 0)
    ]
    document = {
        **described(choice, len(pictures), args.seed),
        "targets": len(targets),
        "classes": len({entry["category_id"] for entry in targets}),
        "recall": {name: beside(value, known.get(name)) for name, value in recall.items()},
    }
    return finish(args, document, lvis_ground.table(document))


def _add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="COCO-style file whose annotations have captions, e.g. vg_test.json",
    )
    add_picture_arguments(parser)
    parser.add_argument(
        "--dataset",
        choices=sorted(KINDS),
        help="data set, which selects its queries and the paper's figures for comparison",
    )


def _run_caption(args: argparse.Namespace) -> int:
    pictures = read_regions(args.data)[: args.limit]
    choice = model_choice(args)
    kind = KINDS.get(args.dataset, "describe")
    settings = {"task": "caption", "data": str(args.data.resolve()), "kind": kind, "seed": args.seed}
    records = run_evaluation(
        Describe(args.images, kind, args.seed), pictures, "picture", choice, plan(args), settings
    )
    texts = [text for record in records for text in record["texts"]]
    regions = [region for picture in pictures for region in picture.regions]
    document = {
        **described(choice, len(pictures), args.seed),
        **caption.report(args.dataset or "", texts, [region.references for region in regions]),
    }
    if args.out:
        results = [
            {"image_id": region.image, "caption": text} for region, text in zip(regions, texts, strict=True)
        ]
        with replacing(args.out / CAPTIONS) as stream:
            stream.write(json.dumps(results).encode())
    return finish(args, document, caption.table(document))


def _add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="JSON lines with question_id, image, text, category (qa90_questions.jsonl)",
    )
    add_picture_arguments(parser, drawn=False, resize="demo")
    parser.add_argument(
        "--truth",
        type=Path,
        help="COCO-style instances of the pictures, to count hallucinated and missed objects",
    )
    parser.add_argument("--synonyms", type=Path, help="JSON object with synonyms for the classes of --truth")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="ask the question without the prefix [grounding], as in the original evaluation",
    )


def _run_chat(args: argparse.Namespace) -> int:
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
    head = described(choice, len(pictures))
    lines = answer_lines(head["model"], pictures, records)
    judged = judge(lines, truth[1], vocabulary) if truth and vocabulary else None
    document = {
        **head,
        **_chat_summary(lines),
        "truth": judged,
    }
    if args.out:
        with replacing(args.out / ANSWERS) as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    return finish(args, document, chat.table(document))


def _chat_summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    spans = [[span for span in line["metadata"]["regions"] if span["boxes"]] for line in lines]
    return {
        "questions": len(lines),
        "words": rounded(sum(len(line["text"].split()) for line in lines) / len(lines)),
        "grounded": rounded(sum(bool(item) for item in spans) / len(lines)),
        "phrases": rounded(sum(map(len, spans)) / len(lines)),
    }


LVIS_GROUND = Subcommand(_add_lvis_ground_arguments, _run_lvis_ground)
CAPTION = Subcommand(_add_caption_arguments, _run_caption)
CHAT = Subcommand(_add_chat_arguments, _run_chat)
