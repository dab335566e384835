"""`groma ground`: ground goals in pictures, without ROS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.errors import printable

if TYPE_CHECKING:
    from groma_ros.types import Goal, Grounding

_DRAWN = (".png", ".jpg", ".jpeg")
_FUNCTION_WORDS = frozenset(
    (
        "a",
        "all",
        "an",
        "and",
        "any",
        "at",
        "behind",
        "below",
        "beside",
        "between",
        "both",
        "by",
        "each",
        "every",
    )
    + (
        "in",
        "left",
        "me",
        "my",
        "near",
        "next",
        "no",
        "not",
        "of",
        "on",
        "one",
        "or",
        "over",
        "right",
        "some",
    )
    + ("that", "the", "this", "to", "under", "which", "with", "without", "your")
)
"""Words that are no goal by themselves: a list of single words that contains one was meant as one goal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma ground`."""
    parser.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="PICTURE",
        help="JPEG, PNG or WebP pictures: files, folders, quoted patterns, or - for standard input; "
        "the stored orientation (EXIF) is applied, so boxes refer to the upright picture",
    )
    parser.add_argument(
        "--goal",
        nargs="+",
        action="append",
        default=[],
        metavar="TEXT",
        help="quoted goals; without any, the regions are listed with their descriptions",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PICTURE",
        help="file for the picture with boxes (.png or .jpg), or a folder for several pictures",
    )
    add_model_arguments(parser, device=True)
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma ground` with the options of `add_arguments`; returns the exit status."""
    from groma_ros.grounding.familiarity import sentences
    from groma_ros.grounding.goals import check_goal
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.io.picture_files import find_pictures, read_picture
    from groma_ros.runtime.model_paths import shipped_model
    from groma_ros.types import Frame, Goal

    goals: list[Goal] = [Goal(text) for text in _goal_texts(args.goal)] or [Goal("", "describe")]
    for goal in goals:
        check_goal(goal)
    names = find_pictures(args.image)
    drawn = _drawn(args.out, names)
    # Read the first picture before loading the model, which takes longer.
    first = read_picture(names[0])
    grounder = Grounder.load(
        args.model or shipped_model(), runtime_options(args), min_presence=args.min_presence
    )
    familiarity = grounder.familiarity
    texts = [goal.text for goal in goals if goal.text]
    documents: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        rgb, turned = first if number == 0 else read_picture(name)
        if turned != 1:
            _note(f"{name}: turned as its EXIF orientation {turned} says, boxes are of the turned picture")
        scene = grounder.perceive(Frame(rgb))
        groundings = grounder.ground(scene, goals)
        document: dict[str, Any] = {"groundings": [item.to_dict() for item in groundings]}
        if familiarity is not None:
            asked = texts if number == 0 else ()
            if warnings := sentences(familiarity, familiarity.unusual(scene), asked, printable(name)):
                document["warnings"] = warnings
            for text in warnings:
                _note(text)
        documents.append(document)
        if not args.json:
            head = [f"{printable(name)}:"] if len(names) > 1 else []
            print("\n".join([*head, *map(_lines, groundings)]), flush=True)
        if drawn:
            _write_picture(drawn[number], rgb, groundings)
            _note(f"wrote {drawn[number]}")
    if args.json:
        several = {"images": [{"image": name, **found} for name, found in zip(names, documents, strict=True)]}
        print(json.dumps(documents[0] if len(names) == 1 else several, indent=1))
    return 0


def _goal_texts(given: Sequence[Sequence[str]]) -> list[str]:
    """Return the goals in the given order. Raises ValueError for several words that were probably meant as
    one goal."""
    for words in given:
        split = len(words) > 1 and not any(" " in word.strip() for word in words)
        if split and any(word.lower() in _FUNCTION_WORDS for word in words):
            raise ValueError(
                f"--goal {' '.join(words)} would be {len(words)} goals of one word each; put a goal of "
                f"several words in quotes: --goal {' '.join(words)!r}."
            )
        if split:
            _note(f"{len(words)} goals of one word each: {', '.join(words)}; several words need quotes")
    return [word for words in given for word in words]


def _drawn(out: Path | None, names: Sequence[str]) -> list[Path]:
    """Return the files to draw into, one per picture; none without --out. Raises ValueError for an unsuitable
    --out."""
    if out is None:
        return []
    if len(names) == 1 and not out.is_dir():
        if out.suffix.lower() not in _DRAWN:
            raise ValueError(f"--out {out} must end in .png or .jpg.")
        return [out]
    if out.suffix.lower() in _DRAWN:
        raise ValueError(f"There are {len(names)} pictures, so --out {out} must be a folder.")
    files = [out / f"{'stdin' if name == '-' else Path(name).stem}.png" for name in names]
    if len(set(files)) < len(files):
        raise ValueError(f"Two of the pictures have the same name, so both cannot be written into {out}.")
    return files


def _note(text: str) -> None:
    print(f"groma: {printable(text)}.", file=sys.stderr)


def _write_picture(path: Path, rgb: Any, groundings: list[Grounding]) -> None:
    import cv2

    from groma_ros.atomic_write import write_file
    from groma_ros.visualization import draw_groundings

    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(draw_groundings(rgb, groundings), cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"The picture {path} could not be encoded.")
    write_file(path, data.tobytes())


def _lines(grounding: Grounding) -> str:
    """Format the answer to one goal as lines of text."""
    named = {region: span.phrase for span in grounding.spans for region in span.regions}
    boxes = [
        f"  {item.score:.2f}  "
        + " ".join(f"{value:7.1f}" for value in item.box)
        + (f"  {printable(named[item.region])}" if item.region in named else "")
        for item in grounding.detections
    ]
    if grounding.goal.kind == "describe":
        title = (
            f"{len(boxes)} regions (score, x1 y1 x2 y2 in pixels, name):" if boxes else "No region was found."
        )
        return "\n".join([title, *boxes])
    found = f"{len(boxes)} found" if boxes else "absent"
    goal = printable(grounding.goal.text)
    return "\n".join(
        [f"{goal}: {found}, presence {grounding.present:.2f}, margin {grounding.margin:.2f}", *boxes]
    )
