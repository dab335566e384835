"""`groma ground`: ground goals in pictures, without ROS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.errors import printable, sentence

if TYPE_CHECKING:
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.io.images import Pixels
    from groma_ros.types import Goal, Grounding

_DRAWN = (".png", ".jpg", ".jpeg")
_NAMED = 10
"""Maximum number of skipped files that are named."""
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
    """Run `groma ground` with the options of `add_arguments`; returns the exit status: 1 if one of several
    pictures could not be used."""
    from groma_ros.grounding.goals import check_goal
    from groma_ros.io.picture_files import find_pictures, other_pictures
    from groma_ros.types import Goal

    goals: list[Goal] = [Goal(text) for text in _goal_texts(args.goal)] or [Goal("", "describe")]
    for goal in goals:
        check_goal(goal)
    names = find_pictures(args.image)
    if skipped := other_pictures(args.image):
        _note(_skipped(skipped))
    drawn = dict(zip(names, _drawn(args.out, names)))
    failures = _Failures(alone=len(names) == 1)
    pictures = _read(names, failures)
    # Read the first usable picture before loading the model, which takes longer.
    first = next(pictures, None)
    documents: list[dict[str, Any]] = []
    if first is not None:
        grounder = _load(args, goals)
        for name, rgb, groundings, warnings in _answers(grounder, chain([first], pictures), goals, failures):
            answers = [item.to_dict() for item in groundings]
            documents.append(
                {"image": name, "groundings": answers} | ({"warnings": warnings} if warnings else {})
            )
            if not args.json:
                head = [f"{printable(name)}:"] if len(names) > 1 else []
                print("\n".join([*head, *map(_lines, groundings)]), flush=True)
            if drawn:
                _draw(name, drawn[name], rgb, groundings, failures)
    if args.json:
        print(json.dumps(_document(documents, failures), indent=1))
    return 1 if failures.reasons else 0


class _Failures:
    """Pictures that could not be used. alone: there is only one picture, so its failure ends the command."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.reasons: dict[str, str] = {}
        """Why, a sentence that names the picture; by name."""

    def add(self, name: str, error: Exception) -> None:
        """Note an error and report it on standard error. Raises it as ValueError if the picture is the only
        one."""
        shown, reason = "standard input" if name == "-" else name, sentence(error)
        named = getattr(error, "filename", None) or reason.startswith(f"The picture {name} ")
        self.reasons[name] = reason if named else f"{shown}: {reason}"
        if self.alone:
            raise ValueError(self.reasons[name]) from error
        _note(self.reasons[name].rstrip("."))


def _read(names: Sequence[str], failures: _Failures) -> Iterator[tuple[str, Pixels, int]]:
    """Yield name, pixels (uint8 HxWx3 RGB) and applied orientation of the pictures that can be read."""
    from groma_ros.io.picture_files import read_picture

    for name in names:
        try:
            rgb, turned = read_picture(name)
        except (ValueError, OSError) as error:
            failures.add(name, error)
            continue
        yield name, rgb, turned


def _load(args: argparse.Namespace, goals: Sequence[Goal]) -> Grounder:
    """Load the model. Raises ValueError for a goal that it cannot answer."""
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.runtime.model_paths import shipped_model

    grounder = Grounder.load(
        args.model or shipped_model(), runtime_options(args), min_presence=args.min_presence
    )
    for goal in goals:
        grounder.check(goal)
    return grounder


def _answers(
    grounder: Grounder,
    pictures: Iterable[tuple[str, Pixels, int]],
    goals: Sequence[Goal],
    failures: _Failures,
) -> Iterator[tuple[str, Pixels, list[Grounding], list[str]]]:
    """Yield name, pixels, answers and warnings of the pictures that the model can use. Warnings are also
    reported on standard error; those about words come with the first picture."""
    from groma_ros.grounding.familiarity import sentences
    from groma_ros.types import Frame

    familiarity, judged = grounder.familiarity, [goal.text for goal in goals if goal.text]
    for name, rgb, turned in pictures:
        if turned != 1:
            _note(f"{name}: turned as its EXIF orientation {turned} says, boxes are of the turned picture")
        try:
            scene = grounder.perceive(Frame(rgb))
            groundings = grounder.ground(scene, goals)
        except (ValueError, OSError) as error:
            failures.add(name, error)
            continue
        warnings: list[str] = []
        if familiarity is not None:
            warnings = sentences(familiarity, familiarity.unusual(scene), judged, printable(name))
            judged = []
        for text in warnings:
            _note(text)
        yield name, rgb, groundings, warnings


def _document(documents: list[dict[str, Any]], failures: _Failures) -> dict[str, Any]:
    """Return the JSON document: of one picture its answers alone, of several also their names and those that
    failed."""
    if failures.alone:
        return {key: value for key, value in documents[0].items() if key != "image"}
    failed = [{"image": name, "error": reason} for name, reason in failures.reasons.items()]
    return {"images": documents} | ({"failed": failed} if failed else {})


def _skipped(names: Sequence[str]) -> str:
    """Name pictures of other types that are left out of folders, without full stop."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"skipped {', '.join(names[:_NAMED])}{more}: only JPEG, PNG and WebP files are read from a folder; "
        "convert the others"
    )


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


def _draw(name: str, path: Path, rgb: Pixels, groundings: list[Grounding], failures: _Failures) -> None:
    """Write the picture with boxes; a file that cannot be written is a failure of its picture."""
    try:
        _write_picture(path, rgb, groundings)
    except OSError as error:
        failures.add(name, error)
    else:
        _note(f"wrote {path}")


def _write_picture(path: Path, rgb: Pixels, groundings: list[Grounding]) -> None:
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
