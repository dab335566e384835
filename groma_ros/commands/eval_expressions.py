"""`groma eval rec`, `grec`, `absence` and `concepts`: data sets of expressions about pictures."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.commands.run_options import (
    Subcommand,
    add_picture_arguments,
    add_run_arguments,
    described,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation import absence, concepts, grec, referring
from groma_ros.evaluation.expression_sets import Answered, GroundExpressions, PictureExpressions, answered
from groma_ros.evaluation.workers import run_evaluation
from groma_ros.types import GoalKind


@dataclass(frozen=True)
class ExpressionSet:
    """A subcommand that evaluates expressions with any number of targets."""

    name: str
    kind: GoalKind
    """Kind of goal the expressions are grounded as."""
    data: str
    """Help text of --data."""
    read: Callable[[Path, Sequence[str]], list[PictureExpressions]]
    """Reads the data; the second argument is the splits, empty for the default."""
    report: Callable[[Sequence[Answered]], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    splits: bool = False
    """Whether the data has splits to choose with --split."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the subcommand."""
        add_run_arguments(parser)
        parser.add_argument("--data", type=Path, required=True, help=self.data)
        add_picture_arguments(parser, drawn=False)
        if self.splits:
            _add_split(parser)
        parser.add_argument(
            "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
        )
        _add_batch(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Run the evaluation; returns the exit status."""
        split = args.split if self.splits else ""
        _check_batch(args)
        pictures = self.read(args.data, _splits(split))[: args.limit]
        choice = model_choice(args)
        settings = {"task": self.name, "data": str(args.data.resolve())}
        if self.splits:
            settings["split"] = split
        work = GroundExpressions(args.images, self.kind, args.batch)
        records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
        document = {
            **described(choice, len(pictures)),
            **self.report(answered(pictures, records)),
        }
        return finish(args, document, self.table(document))


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", default="", help="comma-separated splits, e.g. val,testA (default: all but train)"
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch", type=int, default=32, help="number of expressions asked in one batch (default 32)"
    )


def _check_batch(args: argparse.Namespace) -> None:
    if args.batch < 1:
        raise ValueError(f"--batch is {args.batch}; at least one expression is asked at once.")


def _splits(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _add_rec_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder or refs file of REFER, or a single file such as refcoco_val.json",
    )
    add_picture_arguments(parser)
    _add_split(parser)
    parser.add_argument("--dataset", help="refcoco, refcoco+ or refcocog, if the file does not name it")
    _add_batch(parser)


def _run_rec(args: argparse.Namespace) -> int:
    _check_batch(args)
    name, pictures = referring.read_referring(args.data, _splits(args.split))
    pictures = pictures[: args.limit]
    # Every expression has a target, so an empty answer is never right.
    choice = dataclasses.replace(model_choice(args), min_presence=0.0)
    work = referring.AskExpressions(args.images, args.seed, args.batch)
    settings = {"task": "rec", "data": str(args.data.resolve()), "split": args.split, "seed": args.seed}
    records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
    document = {
        **described(choice, len(pictures), args.seed),
        **referring.report(args.dataset or name, records),
    }
    return finish(args, document, referring.table(document))


REC = Subcommand(_add_rec_arguments, _run_rec)
GREC = ExpressionSet(
    "grec",
    "auto",
    "grefs(unc).json with instances.json beside it, or their folder",
    grec.read_grefs,
    grec.report,
    grec.table,
    splits=True,
)
ABSENCE = ExpressionSet(
    "absence",
    "one",
    "JSON list or JSON lines of samples with image, description and bbox, or rejected_exp",
    lambda path, _: absence.read_samples(path),
    absence.report,
    absence.table,
)
CONCEPTS = ExpressionSet(
    "concepts",
    "all",
    "COCO-style file whose images have a text_input",
    lambda path, _: concepts.read_concepts(path),
    concepts.report,
    concepts.table,
)
