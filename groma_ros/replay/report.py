"""The report of a replay: one HTML file that opens without a network and without scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from groma_ros.replay.charts import CSS, ChartTrack, histogram, spark, timeline, track_of
from groma_ros.replay.compare import WHOLE_RUN, Change
from groma_ros.replay.pictures import Shown, css_colour, examples, picture_texts
from groma_ros.replay.pipeline import STAGES
from groma_ros.replay.plan import DETECTIONS, RECORDING, TIMINGS, ReplayPlan
from groma_ros.replay.records import GoalRecord
from groma_ros.replay.truth import Judged

if TYPE_CHECKING:
    from groma_ros.replay.result import Result

SHOWN = 50
"""Differences and refusals that are listed; the records hold the rest."""


@dataclass(frozen=True, eq=False)
class _Goal:
    """What the page says of one goal. changed, wrong: frames, in their order; shown: those with a picture."""

    place: int
    text: str
    kind: str
    track: ChartTrack
    changes: Sequence[Change]
    judged: Judged | None
    shown: Sequence[Shown]
    ids: Counter[str]

    @property
    def changed(self) -> list[int]:
        return sorted({change.number for change in self.changes if change.number != WHOLE_RUN})

    @property
    def wrong(self) -> list[int]:
        return [number for number, right in self.judged.right.items() if not right] if self.judged else []


def page(result: Result, plan: ReplayPlan) -> str:
    """The document of one bag."""
    goals = [_goal(result, place) for place in range(len(result.run.goals))]
    pictures = picture_texts(result.bag, result.camera, {goal.place: goal.shown for goal in goals})
    title = f"Replay of {result.task.name}"
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        _verdict(result, goals, plan),
        _facts(result),
        "</header><main>",
        _overview(result, goals),
        _moved(result),
        _latency(result),
        _refused(result),
        *(_section(result, goal, pictures) for goal in goals),
        _how(result),
        "</main>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>{''.join(parts)}</body></html>\n"
    )


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


def _verdict(result: Result, goals: Sequence[_Goal], plan: ReplayPlan) -> str:
    kinds = Counter(change.kind for change in result.changes)
    below = [goal for goal in goals if goal.judged and goal.judged.accuracy < plan.least_accuracy]
    if result.changes:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        look, text = "bad", f"{len(result.changes)} differences from the expectation: {listed}."
    elif below:
        look, text = (
            "bad",
            f"{len(below)} goals are right in too few frames: {', '.join(goal.text for goal in below)}.",
        )
    elif result.expectation:
        look, text = "good", "Equal to the expectation within the tolerances."
    elif result.task.accept:
        look, text = "none", "This run was stored as the expectation."
    else:
        look, text = "none", "This run was compared with no expectation."
    return f'<p class="verdict {look}">{escape(text)}</p>' + "".join(
        f'<p class="soft">{escape(line)}.</p>' for line in result.apart
    )


def _facts(result: Result) -> str:
    run, records = result.run, result.records
    seconds = (records[-1].time - records[0].time) / 1e9 if records else 0.0
    latency = result.latency().get("total", {}).get("median_ms", float("nan"))
    right = [good for item in result.judged for good in item.right.values()]
    rows = {
        "Camera": f"{run.camera['topic']} ({run.camera['type']}), {len(records)} of {run.camera['count']} "
        f"images over {seconds:.1f} s, "
        f"{len(result.refused)} refused",
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
    return _definitions(rows)


def _overview(result: Result, goals: Sequence[_Goal]) -> str:
    last = _last(result)
    head = ["goal", "presence over the run", "n:there in", "n:best score", "n:ids"]
    head += ["n:right"] if result.judged else []
    head += ["n:differences"] if result.expectation else []
    rows = []
    for goal in goals:
        there = int((goal.track.boxes > 0).sum())
        row = [
            f'<a href="#goal-{goal.place}">{escape(goal.text)}</a>',
            spark(goal.track, last, f"presence of {goal.text}"),
            f"{there} of {len(goal.track.numbers)}",
            _mean(goal.track.score),
            str(len(goal.ids)),
        ]
        row += [f"{goal.judged.accuracy:.3f}" if goal.judged else "-"] if result.judged else []
        row += [str(len(goal.changes))] if result.expectation else []
        rows.append(row)
    return "<h2>Goals</h2>" + _table(head, rows)


def _moved(result: Result) -> str:
    if not result.expectation:
        return ""
    head = [
        "goal",
        "n:boxes in both",
        "n:new",
        "n:missing",
        "n:mean IoU",
        "n:least IoU",
        "n:mean score difference",
        "n:greatest",
        "n:presence moved by",
        "n:flips",
        "n:other ids",
    ]
    rows = [
        [
            escape(m.goal),
            str(m.boxes),
            str(m.new),
            str(m.missing),
            f"{m.overlap:.4f}",
            f"{m.least_overlap:.4f}",
            f"{m.score:.4f}",
            f"{m.most_score:.4f}",
            f"{m.presence:.4f}",
            str(m.flips),
            str(m.ids),
        ]
        for m in result.movements
    ]
    frames = [change for change in result.changes if not change.goal]
    return (
        f"<h2>What moved</h2><p>Against {escape(str(result.expectation.folder))}.</p>"
        + _table(head, rows)
        + _changes(frames)
    )


def _latency(result: Result) -> str:
    values = {stage: [frame[stage] for frame in result.times if stage in frame] for stage in STAGES}
    values = {stage: times for stage, times in values.items() if times}
    rows = [
        [
            stage,
            f"{np.median(times):.1f}",
            f"{np.percentile(times, 95):.1f}",
            f"{max(times):.1f}",
            str(len(times)),
        ]
        for stage, times in values.items()
    ]
    charts = "".join(
        f"<figure>{histogram(times, f'Histogram of {stage}, milliseconds')}<figcaption>{stage}</figcaption></figure>"
        for stage, times in values.items()
        if stage in ("total", "perceive", "answer", "decode")
    )
    table = _table(["stage", "n:median ms", "n:95th percentile ms", "n:longest ms", "n:frames"], rows)
    return f'<h2>Latency</h2>{table}<div class="charts">{charts}</div>'


def _refused(result: Result) -> str:
    if not result.refused:
        return ""
    items = [f"<li>frame {record.number}: {escape(record.refused)}</li>" for record in result.refused[:SHOWN]]
    return f"<h2>Refused images</h2><ul>{''.join(items)}</ul>{_more(len(result.refused))}"


def _section(result: Result, goal: _Goal, pictures: dict[tuple[int, int], str]) -> str:
    carried = [record.number for record in result.records if record.goals and not record.asked]
    marks = {
        "changed": goal.changed,
        "wrong": goal.wrong,
        "refused": [record.number for record in result.refused],
        "carried": carried,
    }
    chart = timeline(goal.track, _last(result), result.run.min_presence, marks, f"Timeline of {goal.text}")
    swatch = f'<span class="swatch" style="background:{css_colour(goal.place)}"></span>'
    there = int((goal.track.boxes > 0).sum())
    rows = {
        "Kind": goal.kind,
        "There": f"in {there} of {len(goal.track.numbers)} frames",
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
        rows["In space"] = f"{sum(placed)} of {len(placed)} boxes"
    if goal.judged:
        rows["Right"] = f"{goal.judged.accuracy:.3f} of {len(goal.judged.right)} frames ({goal.judged.kind})"
    figures = "".join(_figure(goal, item, pictures) for item in goal.shown)
    return (
        '<section class="goal" '
        f'id="goal-{goal.place}"><h2>{swatch}{escape(goal.text)}</h2>{_definitions(rows)}'
        '<p class="soft">Line: presence; dashed: the presence that is needed; dots: score of the best '
        "box; bars: number of boxes.</p>"
        f'{chart}<div class="pictures">{figures}</div>{_changes(goal.changes)}</section>'
    )


def _figure(goal: _Goal, item: Shown, pictures: dict[tuple[int, int], str]) -> str:
    source = pictures.get((goal.place, item.number))
    if source is None:
        return ""
    count = len(item.found.detections)
    said = (
        f"{f'{count} box' if count == 1 else f'{count} boxes' if count else 'absent'}, presence "
        f"{item.found.present:.2f}"
    )
    expected = (
        f"; expected {len(item.wanted.detections)}, dashed"
        if item.wanted and item.why.startswith("changed")
        else ""
    )
    alt = f"Frame {item.number}: {said} for {goal.text}"
    caption = f"Frame {item.number}, {escape(item.why)}: {said}{expected}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"><figcaption>{caption}</figcaption></figure>'


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    items = "".join(f"<li>{escape(change.line)}</li>" for change in changes[:SHOWN])
    return (
        f"<details><summary>{len(changes)} "
        f"differences</summary><ul>{items}</ul>{_more(len(changes))}</details>"
    )


def _how(result: Result) -> str:
    files = ", ".join(f"<code>{name}</code>" for name in (DETECTIONS, RECORDING, TIMINGS))
    made = f"Made by groma_ros {escape(result.run.version)} from <code>{escape(str(result.task.bag))}</code>."
    return f"<h2>Beside this page</h2><p>{files}. {made}</p>"


def _last(result: Result) -> int:
    return max((record.number for record in result.records), default=0)


def _mean(values: np.ndarray) -> str:
    return f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "-"


def _least(values: np.ndarray) -> str:
    return f"{np.nanmin(values):.3f}" if np.isfinite(values).any() else "-"


def _more(count: int) -> str:
    return f'<p class="soft">and {count - SHOWN} more</p>' if count > SHOWN else ""


def _definitions(rows: dict[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
        + "</dl>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML; a heading that begins with n: stands over numbers."""
    classes = [' class="n"' if name.startswith("n:") else "" for name in head]
    top = "".join(
        f'<th scope="col"{kind}>{escape(name.removeprefix("n:"))}</th>' for name, kind in zip(head, classes)
    )
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], classes[1:]))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
