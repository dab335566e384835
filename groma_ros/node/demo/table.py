"""The live table: what each goal's answer is right now, and how fast the answers come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from groma_ros.types import Goal, Grounding

BOXES_SHOWN = 2


def answers_table(goals: Sequence[Goal], newest: Sequence[Grounding], correct: Mapping[str, Sequence[bool]], footer: str) -> Group:
    """A row a goal. correct: by goal, whether each answered frame so far was right; empty before the run is judged."""
    table = Table(title="groma: language goals to boxes", title_justify="left", expand=False)
    table.add_column("goal", min_width=24)
    table.add_column("present", justify="right")
    table.add_column("boxes", justify="right")
    table.add_column("x1 y1 x2 y2, score", no_wrap=True)
    if correct:
        table.add_column("frames right", justify="right")
    answered = {item.goal.text: item for item in newest}
    for goal in goals:
        row = _row(goal, answered.get(goal.text))
        goods = correct.get(goal.text, ())
        table.add_row(*row, *([f"{sum(goods)} of {len(goods)}"] if correct else []))
    return Group(table, Text(footer))


def _row(goal: Goal, grounding: Grounding | None) -> list[str | Text]:
    name = Text(goal.text if goal.kind == "auto" else f"{goal.text} ({goal.kind})")
    if grounding is None:
        return [name, "", "", Text("waiting", style="dim")]
    count = len(grounding.detections)
    verdict = Text(_boxes(grounding)) if count else Text("absent", style="yellow")
    return [name, f"{grounding.present:.2f}", str(count), verdict]


def _boxes(grounding: Grounding) -> str:
    shown = ["{:.0f} {:.0f} {:.0f} {:.0f}, ".format(*item.box) + f"{item.score:.2f}" for item in grounding.detections[:BOXES_SHOWN]]
    more = len(grounding.detections) - BOXES_SHOWN
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")
