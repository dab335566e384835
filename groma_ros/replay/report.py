"""The report of a replay: one self-contained HTML file without scripts, from the template report.html.j2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from numpy.typing import NDArray

from groma_ros.replay.charts import ChartTrack, histogram, spark, timeline, track_of
from groma_ros.replay.compare import WHOLE_RUN, Change
from groma_ros.replay.pictures import Shown, css_colour, examples, picture_texts
from groma_ros.replay.pipeline import STAGES
from groma_ros.replay.plan import DETECTIONS, RECORDING, TIMINGS, ReplayPlan
from groma_ros.replay.records import GoalRecord
from groma_ros.replay.truth import Judged

if TYPE_CHECKING:
    from groma_ros.replay.result import Result

TEMPLATE = "report.html.j2"
SHOWN = 50
"""Number of differences and refusals listed; the records contain all."""
HISTOGRAMS = ("total", "perceive", "answer", "decode")
Columns = list[tuple[str, bool]]
"""Headings of a table, and whether the column has numbers."""


@dataclass(frozen=True, eq=False)
class _Goal:
    """Results of one goal."""

    place: int
    text: str
    kind: str
    track: ChartTrack
    changes: Sequence[Change]
    judged: Judged | None
    shown: Sequence[Shown]
    """Frames with a picture."""
    ids: Counter[str]
    """Number of boxes by track id."""

    @property
    def changed(self) -> list[int]:
        """Frames that differ from the expectation."""
        return sorted({change.number for change in self.changes if change.number != WHOLE_RUN})

    @property
    def wrong(self) -> list[int]:
        """Frames that differ from the truth."""
        return [number for number, right in self.judged.right.items() if not right] if self.judged else []

    @property
    def there(self) -> int:
        """Number of frames with boxes."""
        return int((self.track.boxes > 0).sum())


def page(result: Result, plan: ReplayPlan) -> str:
    """Render the report of one bag."""
    goals = [_goal(result, place) for place in range(len(result.run.goals))]
    pictures = picture_texts(result.bag, result.camera, {goal.place: goal.shown for goal in goals})
    return _template().render(
        title=f"Replay of {result.task.name}",
        verdict=_verdict(result, goals, plan),
        apart=result.apart,
        unjudged=[item.sentence for item in result.unjudged],
        facts=_facts(result),
        overview=_overview(result, goals),
        moved=_moved(result) if result.expectation else None,
        latency=_latency(result),
        refused=result.refused,
        goals=[_section(result, goal, pictures) for goal in goals],
        files=(DETECTIONS, RECORDING, TIMINGS),
        version=result.run.version,
        bag=result.task.bag,
        shown=SHOWN,
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _goal(result: Result, place: int) -> _Goal:
    goal = result.run.goals[place]
    text = goal["text"]
    changes = [change for change in result.changes if change.goal == text]
    judged = next((item for item in result.judged if item.goal == text), None)
    expected = result.expectation.records if result.expectation else []
    wanted: dict[int, GoalRecord] = {
        record.number: item for record in expected for item in record.goals if item.goal == text
    }
    worst = [
        number
        for number, _ in Counter(
            change.number for change in changes if change.number != WHOLE_RUN
        ).most_common()
    ]
    wrong = [number for number, right in judged.right.items() if not right] if judged else []
    ids = Counter(
        box.id
        for record in result.records
        for item in record.goals
        if item.goal == text
        for box in item.detections
    )
    shown = examples(text, result.records, worst, wrong, wanted)
    return _Goal(place, text, goal["kind"], track_of(text, result.records), changes, judged, shown, ids)


def _verdict(result: Result, goals: Sequence[_Goal], plan: ReplayPlan) -> dict[str, str]:
    kinds = Counter(change.kind for change in result.changes)
    below = [goal for goal in goals if goal.judged and goal.judged.accuracy < plan.least_accuracy]
    if result.changes:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        look, text = "bad", f"{len(result.changes)} differences from the expectation: {listed}."
    elif below:
        names = ", ".join(goal.text for goal in below)
        look, text = "bad", f"{len(below)} goals are right in too few frames: {names}."
    elif result.unjudged and plan.least_accuracy > 0:
        names = ", ".join(item.goal for item in result.unjudged)
        look, text = "bad", f"{len(result.unjudged)} goals of the truth were judged on no frame: {names}."
    elif result.expectation:
        look, text = "good", "Equal to the expectation within the tolerances."
    elif result.task.accept:
        look, text = "none", "This run was stored as the expectation."
    else:
        look, text = "none", "This run was compared with no expectation."
    return {"look": look, "text": text}


def _facts(result: Result) -> dict[str, str]:
    run, records = result.run, result.records
    seconds = (records[-1].time - records[0].time) / 1e9 if records else 0.0
    latency = result.latency().get("total", {}).get("median_ms", float("nan"))
    right = [good for item in result.judged for good in item.right.values()]
    rows = {
        "Camera": f"{run.camera['topic']} ({run.camera['type']}), {len(records)} of {run.camera['count']} "
        f"images over {seconds:.1f} s, {len(result.refused)} refused",
        "Model": f"{run.model} on {run.backend} ({run.device}, {run.precision}), weights {run.weights[:12]}",
        "Asked": f"{len(run.goals)} goals; the language model answered on "
        f"{sum(record.asked for record in records)} frames",
        "Latency": f"{latency:.1f} ms a frame in the median",
    }
    if run.depth:
        partial = sum(bool(record.depth) for record in records)
        rows["Depth"] = f"{run.depth['depth']} with {run.depth['info']}; incomplete on {partial} images"
    if right:
        rows["Accuracy"] = (
            f"{sum(right) / len(right):.3f} of {len(right)} answers are exactly the true boxes (IoU 0.5)"
        )
    return rows


def _overview(result: Result, goals: Sequence[_Goal]) -> dict[str, Any]:
    last = _last(result)
    columns: Columns = [("goal", False), ("presence over the run", False)]
    columns += [(name, True) for name in ("there in", "best score", "ids")]
    columns += [("right", True)] if result.judged else []
    columns += [("differences", True)] if result.expectation else []
    rows = []
    for goal in goals:
        row: list[Any] = [
            Markup('<a href="#goal-{}">{}</a>').format(goal.place, goal.text),
            Markup(spark(goal.track, last, f"presence of {goal.text}")),
            f"{goal.there} of {len(goal.track.numbers)}",
            _mean(goal.track.score),
            len(goal.ids),
        ]
        row += [f"{goal.judged.accuracy:.3f}" if goal.judged else "-"] if result.judged else []
        row += [len(goal.changes)] if result.expectation else []
        rows.append(row)
    return {"columns": columns, "rows": rows}


def _moved(result: Result) -> dict[str, Any]:
    assert result.expectation is not None
    names = (
        *("boxes in both", "new", "missing", "mean IoU", "least IoU", "mean score difference", "greatest"),
        *("presence moved by", "flips", "other ids"),
    )
    rows = [
        [
            m.goal,
            m.boxes,
            m.new,
            m.missing,
            *(f"{value:.4f}" for value in (m.overlap, m.least_overlap, m.score, m.most_score, m.presence)),
            m.flips,
            m.ids,
        ]
        for m in result.movements
    ]
    return {
        "folder": result.expectation.folder,
        "columns": [("goal", False), *((name, True) for name in names)],
        "rows": rows,
        "frames": [change.line for change in result.changes if not change.goal],
    }


def _latency(result: Result) -> dict[str, Any]:
    values = {stage: [frame[stage] for frame in result.times if stage in frame] for stage in STAGES}
    values = {stage: times for stage, times in values.items() if times}
    names = ("median ms", "95th percentile ms", "longest ms", "frames")
    figures = {
        stage: (float(np.median(times)), float(np.percentile(times, 95)), max(times))
        for stage, times in values.items()
    }
    return {
        "columns": [("stage", False), *((name, True) for name in names)],
        "rows": [
            [stage, *(f"{value:.1f}" for value in three), len(values[stage])]
            for stage, three in figures.items()
        ],
        "charts": [
            (stage, Markup(histogram(times, f"Histogram of {stage}, milliseconds")))
            for stage, times in values.items()
            if stage in HISTOGRAMS
        ],
    }


def _section(result: Result, goal: _Goal, pictures: dict[tuple[int, int], str]) -> dict[str, Any]:
    marks = {
        "changed": goal.changed,
        "wrong": goal.wrong,
        "refused": [record.number for record in result.refused],
        "carried": [record.number for record in result.records if record.goals and not record.asked],
    }
    chart = timeline(goal.track, _last(result), result.run.min_presence, marks, f"Timeline of {goal.text}")
    facts = {
        "Kind": goal.kind,
        "There": f"in {goal.there} of {len(goal.track.numbers)} frames",
        "Presence": f"mean {_mean(goal.track.present)}, least {_least(goal.track.present)}",
        "Best score": f"mean {_mean(goal.track.score)}, least {_least(goal.track.score)}",
        "Ids": ", ".join(
            f"{number or 'untracked'} ({count} boxes)" for number, count in goal.ids.most_common(8)
        )
        or "none",
    }
    if result.run.depth:
        found = [item for record in result.records for item in record.goals if item.goal == goal.text]
        placed = [box.place is not None for item in found for box in item.detections]
        facts["In space"] = f"{sum(placed)} of {len(placed)} boxes"
    if goal.judged:
        facts["Right"] = f"{goal.judged.accuracy:.3f} of {len(goal.judged.right)} frames ({goal.judged.kind})"
    return {
        "place": goal.place,
        "text": goal.text,
        "colour": css_colour(goal.place),
        "facts": facts,
        "timeline": Markup(chart),
        "pictures": [
            _picture(goal, item, pictures[goal.place, item.number])
            for item in goal.shown
            if (goal.place, item.number) in pictures
        ],
        "changes": [change.line for change in goal.changes],
    }


def _picture(goal: _Goal, item: Shown, source: str) -> dict[str, str]:
    count = len(item.found.detections)
    boxes = "absent" if not count else "1 box" if count == 1 else f"{count} boxes"
    said = f"{boxes}, presence {item.found.present:.2f}"
    expected = (
        f"; expected {len(item.wanted.detections)}, dashed"
        if item.wanted and item.why.startswith("changed")
        else ""
    )
    return {
        "source": source,
        "alt": f"Frame {item.number}: {said} for {goal.text}",
        "caption": f"Frame {item.number}, {item.why}: {said}{expected}",
    }


def _last(result: Result) -> int:
    return max((record.number for record in result.records), default=0)


def _mean(values: NDArray[Any]) -> str:
    return f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "-"


def _least(values: NDArray[Any]) -> str:
    return f"{np.nanmin(values):.3f}" if np.isfinite(values).any() else "-"
