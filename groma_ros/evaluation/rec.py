"""`groma eval rec`: referring expression comprehension on RefCOCO, RefCOCO+ and RefCOCOg, as the original's evaluation asks."""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.evaluation.options import add_picture_arguments, add_run_arguments, finish, model_choice, plan, rounded
from groma_ros.evaluation.pictures import find_picture, read_rgb
from groma_ros.evaluation.published import HEAD, beside, rec_accuracy, row
from groma_ros.evaluation.referring import Expression, ReferredPicture, read_referring
from groma_ros.evaluation.workers import Record, run
from groma_ros.geometry import box_iou
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal

IOU = 0.5


@dataclass(frozen=True)
class AskExpressions:
    """The work on one picture: all its expressions, in batches, each in a wording drawn by lot.

    The record: for every expression its number in the file, split, the overlap of the answer with the target, and the best overlap that
    any region has with it, which is what the proposer leaves possible.
    """

    images: Path
    seed: int
    batch: int

    def __call__(self, grounder: Grounder, picture: ReferredPicture) -> Record:
        scene = grounder.perceive(Frame(read_rgb(find_picture(self.images, picture.name))))
        rows = []
        for start in range(0, len(picture.expressions), self.batch):
            batch = picture.expressions[start : start + self.batch]
            goals = [Goal(item.text, "one") for item in batch]
            answers = grounder.answers(scene, goals, [self._wording(item, grounder.wordings("one")) for item in batch])
            overlaps = box_iou(np.array([item.box for item in batch], np.float32), scene.boxes)
            for item, answer, overlap in zip(batch, answers, overlaps, strict=True):
                chosen = float(overlap[answer.regions[0]]) if answer.regions else 0.0
                rows.append([item.number, item.split, chosen, float(overlap.max())])
        return {"rows": rows}

    def _wording(self, item: Expression, count: int) -> int:
        """The original draws one of its six wordings anew for each expression; this draw is the same in every run."""
        return random.Random(f"{self.seed} {item.number}").randrange(max(1, count))


def report(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """Accuracy by split: the answer overlaps the target by more than one half."""
    rows = [row for record in records for row in record["rows"]]
    splits = {}
    for split in dict.fromkeys(entry[1] for entry in rows):
        own = np.array([entry[2:] for entry in rows if entry[1] == split])
        accuracy = 100 * float((own[:, 0] > IOU).mean())
        splits[split] = {
            "expressions": len(own),
            "accuracy": beside(accuracy, rec_accuracy(name, split, len(own))),
            "mean_iou": rounded(float(own[:, 0].mean())),
            "reachable": rounded(100 * float((own[:, 1] > IOU).mean())),
        }
    return {"dataset": name, "iou": IOU, "splits": splits}


def table(document: dict[str, Any]) -> str:
    """The report as lines to read."""
    lines = [f"{document['model']} on {document['dataset'] or 'referring expressions'}: accuracy at IoU {IOU}, percent", HEAD]
    for split, entry in document["splits"].items():
        tail = f"   of {entry['expressions']}; a region for {entry['reachable']:.2f}, mean IoU {entry['mean_iou']:.3f}"
        lines.append(row(split, entry["accuracy"], tail))
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval rec`."""
    add_run_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder or refs file of REFER, or one file as refcoco_val.json")
    add_picture_arguments(parser)
    parser.add_argument("--split", default="", help="only these splits, e.g. val,testA (default: all but train)")
    parser.add_argument("--dataset", help="refcoco, refcoco+ or refcocog, where the file does not say it")
    parser.add_argument("--batch", type=int, default=32, help="expressions of a picture that are asked at once (default 32)")


def run_eval_rec(args: argparse.Namespace) -> int:
    """`groma eval rec` with the options of `add_arguments`; returns the exit status."""
    name, pictures = read_referring(args.data, tuple(part for part in args.split.split(",") if part))
    pictures = pictures[: args.limit]
    choice = dataclasses.replace(model_choice(args), min_presence=0.0)  # every expression means something
    work = AskExpressions(args.images, args.seed, args.batch)
    settings = {"task": "rec", "data": str(args.data.resolve()), "split": args.split, "seed": args.seed}
    records = run(work, pictures, "picture", choice, plan(args), settings)
    asked = {"model": choice.bundle().name, "resize": choice.bundle().image.resize, "seed": args.seed, "pictures": len(pictures)}
    document = {**asked, **report(args.dataset or name, records)}
    return finish(args, document, table(document))
