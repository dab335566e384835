"""Short form of both robot demonstrations for continuous integration: five fixed episodes each, run in
parallel, with checks of the results.

Run by `make demos-short`. A demonstration that fails its checks is run once more, with results in a separate
folder (out/short/navigate-2). If that fails too, exits with status 1 and a sentence for each failed check.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from groma_ros.client.demo.processes import Child

EPISODES = 5
AGAIN = "-2"
"""Suffix of the folder of a second run."""
BROKEN = ("node lost", "arm lost", "base lost", "refused")
"""Causes that mean a failed process or topic, rather than an error of the model."""
ROW_TYPES = {"seed": int, "goal": str, "kind": str, "present": bool, "outcome": str, "cause": str}


@dataclass(frozen=True)
class Expected:
    """Checks of the five episodes of a demonstration."""

    name: str
    """Name of the demonstration's folder and JSON file."""
    wrong: str
    """Key under which wrong lifts or false arrivals are counted."""
    outcomes: tuple[str, ...]
    """All allowed outcomes of an episode."""
    first_seed: int
    floor: int | None
    """Maximum number of successes with a random object on these seeds: episodes whose object, as drawn with
    FINDER=random, matches the goal. The node must have more. None if five episodes cannot tell: groma-tiny
    recognises few objects of Miniworld by name, and reached 0 to 2 of 4 in repeated runs."""
    absent_motions: int
    """Maximum number of episodes that act on an absent goal: the hand moves, or the base reports arrival. A
    base drives around for any goal, to search for it."""
    most_wrong: int
    """Maximum number of wrong lifts or false arrivals."""
    shortest_drive: float = 0.0
    """Minimum distance in metres that the base must have driven in at least one episode: a Nav2 that accepts
    goals but does not drive makes every episode "not arrived". 0 for an arm."""
    options: tuple[str, ...] = ()
    """Further options of the demonstration's command line."""


EXPECTED = (
    Expected("grasp", "wrong_lift", ("success", "nothing lifted", "wrong lift", "motion"), 10, 0, 0, 3),
    Expected(
        "navigate",
        "false_arrival",
        ("success", "not arrived", "false arrival"),
        18,
        None,
        0,
        3,
        1.0,
        ("--search-seconds", "75"),  # a quarter: most searches here end without arrival
    ),
)


def form_problems(document: Mapping[str, Any], wrong: str) -> list[str]:
    """Return deviations of a JSON file from the documented format, one sentence each."""
    if not isinstance(document, Mapping):
        return ["The file is no mapping."]
    found = []
    for key in ("episodes", "present", "success", wrong, "absent", "motion_on_absent"):
        if type(document.get(key)) is not int:
            found.append(f"The key {key!r} is {document.get(key)!r} and no whole number.")
    if not isinstance(document.get("causes"), dict):
        found.append("The key 'causes' is no mapping.")
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [*found, "The key 'rows' is no list of mappings."]
    for index, row in enumerate(rows):
        found += [
            f"Row {index} has {key!r}: {row.get(key)!r}, which is no {kind.__name__}."
            for key, kind in ROW_TYPES.items()
            if type(row.get(key)) is not kind
        ]
    return found


def problems(document: Mapping[str, Any], expected: Expected) -> list[str]:
    """Return failed checks of a demonstration's JSON file, one sentence each; empty if it passes."""
    found = form_problems(document, expected.wrong)
    if found:
        return found
    rows = document["rows"]
    wanted = list(range(expected.first_seed, expected.first_seed + EPISODES))
    if [row["seed"] for row in rows] != wanted:
        found.append(f"The seeds are {[row['seed'] for row in rows]} and not {wanted}.")
    for row in rows:
        if row["outcome"] not in expected.outcomes:
            found.append(f"Seed {row['seed']} has the unknown outcome {row['outcome']!r}.")
        if (row["outcome"] == "success") == bool(row["cause"]):
            found.append(f"Seed {row['seed']} has the outcome {row['outcome']!r} and cause {row['cause']!r}.")
        if row["cause"] in BROKEN:
            found.append(f"Seed {row['seed']} ended with {row['cause']!r}: a process or a topic failed.")
    present = [row for row in rows if row["present"]]
    absent = [row for row in rows if not row["present"]]
    counted = {
        "episodes": len(rows),
        "present": len(present),
        "success": sum(row["outcome"] == "success" for row in present),
        expected.wrong: sum(bool(row.get("wrong")) for row in rows),
        "absent": len(absent),
        "motion_on_absent": sum(bool(row.get("moved")) for row in absent),
        "causes": dict(Counter(row["cause"] for row in rows if row["cause"])),
    }
    for key, value in counted.items():
        if document[key] != value:
            found.append(f"The key {key!r} is {document[key]!r}; its rows say {value!r}.")
    if expected.floor is not None and counted["success"] <= expected.floor:
        found.append(
            f"{counted['success']} of {len(present)} episodes succeed; going for a random object makes "
            f"{expected.floor} succeed on these seeds, so more are needed."
        )
    if counted["motion_on_absent"] > expected.absent_motions:
        found.append(
            f"{counted['motion_on_absent']} of {len(absent)} goals that mean nothing there were acted on; at "
            f"most {expected.absent_motions} may be."
        )
    if counted[expected.wrong] > expected.most_wrong:
        found.append(
            f"The key {expected.wrong!r} counts {counted[expected.wrong]} of {len(rows)} episodes; at most "
            f"{expected.most_wrong} may be."
        )
    longest = max((_path(row) for row in rows), default=0.0)
    if longest < expected.shortest_drive:
        found.append(
            f"The longest path of all episodes is {longest:.2f} m; at least {expected.shortest_drive:.1f} m "
            "must be driven in one."
        )
    return found


def _path(row: Mapping[str, Any]) -> float:
    """Distance driven in an episode, metres; 0 for an episode without a score."""
    figures = row.get("figures")
    path = figures.get("path") if isinstance(figures, Mapping) else None
    return float(path) if isinstance(path, (int, float)) else 0.0


def picture_problems(out: Path, name: str) -> list[str]:
    """Return what is wrong with the strip of pictures and the film of a demonstration."""
    found = []
    if cv2.imread(str(out / f"{name}.png")) is None:
        found.append(f"{out / name}.png is no picture.")
    if not cv2.VideoCapture(str(out / f"{name}.mp4")).read()[0]:
        found.append(f"{out / name}.mp4 has no frame.")
    return found


def run(out: Path, seconds: float, expected: Sequence[Expected] = EXPECTED, suffix: str = "") -> list[str]:
    """Run the demonstrations in parallel, with a time limit in seconds, and return the failed checks. Each
    writes into a folder of its name and the suffix."""
    end = time.monotonic() + seconds
    found = []
    with ExitStack() as stack:
        children = []
        for item in expected:
            folder = out / f"{item.name}{suffix}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{item.name}.json").unlink(missing_ok=True)
            arguments = ["--seeds", str(EPISODES), "--first-seed", str(item.first_seed), "--out", str(folder)]
            arguments += item.options
            module = f"demo.{item.name}.run"
            children.append(stack.enter_context(Child(module, arguments, folder / "run.log", {})))
        for item, child in zip(expected, children):
            try:
                status = child.wait(max(0.0, end - time.monotonic()))
            except TimeoutError as error:
                found.append(f"demo-{item.name}: {error}")
                continue
            print(child.output().strip(), flush=True)
            if status:
                found.append(
                    f"demo-{item.name} ended with status {status}; it last said: {child.last_line()}"
                )
                continue
            folder = out / f"{item.name}{suffix}"
            try:
                document = json.loads((folder / f"{item.name}.json").read_text())
            except (OSError, ValueError) as error:
                found.append(
                    f"demo-{item.name} ended with status 0 and left no results that can be read: {error}"
                )
                continue
            found += [f"demo-{item.name}: {problem}" for problem in problems(document, item)]
            found += [f"demo-{item.name}: {problem}" for problem in picture_problems(folder, item.name)]
    return found


def main() -> int:
    """Run the short form with the options of the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.short_form", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/short"), help="folder for results")
    parser.add_argument("--minutes", type=float, default=7.0, help="time limit of a run (default 7)")
    args = parser.parse_args()
    start = time.monotonic()
    for item in EXPECTED:  # of an earlier call
        shutil.rmtree(args.out / f"{item.name}{AGAIN}", ignore_errors=True)
    found = run(args.out, 60 * args.minutes)
    print("\n".join(found), file=sys.stderr)
    # The demonstrations run in real time, so a temporarily busy machine must not make them fail.
    again = [item for item in EXPECTED if any(line.startswith(f"demo-{item.name}") for line in found)]
    if again:
        print(f"Once more: {', '.join(f'demo-{item.name}' for item in again)}.", file=sys.stderr)
        found = run(args.out, 60 * args.minutes, again, AGAIN)  # keep the first results
        print("\n".join(found), file=sys.stderr)
    if not found:
        print(f"Both demonstrations hold ({time.monotonic() - start:.0f} s).")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
