"""Results of a demonstration's episodes: rows, shares with Wilson intervals, causes, and the JSON file with
them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Z95 = 1.959964


@dataclass(frozen=True)
class Row:
    """Result of one episode."""

    seed: int
    goal: str
    kind: str
    present: bool
    """Whether the goal refers to an object that is present."""
    outcome: str
    """"success", or the kind of failure."""
    cause: str = ""
    """Cause of a failure; "" for a success."""
    wrong: bool = False
    """Whether a wrong object was lifted or driven to."""
    moved: bool = False
    """Whether the robot moved although the goal is absent."""
    figures: dict[str, float] = field(default_factory=dict)
    """Further figures of the episode."""


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share; (0, 1) without attempts."""
    if total == 0:
        return 0.0, 1.0
    share, squared = count / total, Z95**2
    middle = share + squared / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    scale = 1 + squared / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def summary(rows: Sequence[Row], wrong: str) -> dict[str, Any]:
    """Counts and shares. wrong: the key under which wrong lifts or false arrivals are counted."""
    present = [row for row in rows if row.present]
    absent = [row for row in rows if not row.present]
    success = sum(row.outcome == "success" for row in present)
    wrongs = sum(row.wrong for row in rows)
    moved = sum(row.moved for row in absent)
    kinds = sorted({row.kind for row in rows})
    return {
        "episodes": len(rows),
        "present": len(present),
        "success": success,
        "success_interval": _rounded(wilson(success, len(present))),
        wrong: wrongs,
        f"{wrong}_interval": _rounded(wilson(wrongs, len(rows))),
        "absent": len(absent),
        "motion_on_absent": moved,
        "motion_on_absent_interval": _rounded(wilson(moved, len(absent))),
        "causes": dict(Counter(row.cause for row in rows if row.cause).most_common()),
        "kinds": {
            kind: [
                sum(r.outcome == "success" for r in rows if r.kind == kind),
                sum(r.kind == kind for r in rows),
            ]
            for kind in kinds
        },
        "rows": [asdict(row) for row in rows],
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(value, 3) for value in interval]


def write_summary(path: Path, rows: Sequence[Row], wrong: str, **more: Any) -> dict[str, Any]:
    """Write the JSON file of a demonstration and return its content."""
    document = {**summary(rows, wrong), **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=1))
    os.replace(part, path)
    return document


def described(document: dict[str, Any], wrong: str) -> str:
    """Format a summary for the terminal."""

    def line(name: str, count: int, total: int, interval: Sequence[float]) -> str:
        share = count / total if total else 0.0
        return (
            f"  {name:<22}{count:>4} of {total:<4} {share:.3f}  (95 %: {interval[0]:.3f} to "
            f"{interval[1]:.3f})"
        )

    lines = [
        line("success", document["success"], document["present"], document["success_interval"]),
        line(wrong.replace("_", " "), document[wrong], document["episodes"], document[f"{wrong}_interval"]),
        line(
            "motion on absent",
            document["motion_on_absent"],
            document["absent"],
            document["motion_on_absent_interval"],
        ),
    ]
    causes = ", ".join(f"{name} {count}" for name, count in document["causes"].items())
    return "\n".join([*lines, f"  causes: {causes or 'none'}"])
