"""Charts of a report as inline SVG, styled by the page's CSS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.replay.records import FrameRecord

WIDTH, LEFT, RIGHT = 760, 58, 8
COLUMNS = 720
"""Longer runs are binned to this many columns: the line is the mean, the band behind it minimum and
maximum."""


@dataclass(frozen=True, eq=False)
class ChartTrack:
    """Values of one goal over a run, one entry per frame with an answer."""

    numbers: NDArray[Any]
    """Frame numbers."""
    present: NDArray[Any]
    """Presence, 0..1."""
    score: NDArray[Any]
    """Best score, 0..1, NaN without boxes."""
    boxes: NDArray[Any]
    """Number of boxes."""


def track_of(goal: str, records: Sequence[FrameRecord]) -> ChartTrack:
    """Collect the values of a goal over a run."""
    found = [(record.number, item) for record in records for item in record.goals if item.goal == goal]
    scores = [item.detections[0].score if item.detections else np.nan for _, item in found]
    return ChartTrack(
        np.array([number for number, _ in found], np.int64),
        np.array([item.present for _, item in found], np.float64),
        np.array(scores, np.float64),
        np.array([len(item.detections) for _, item in found], np.int64),
    )


def timeline(
    track: ChartTrack, last: int, least: float, marks: Mapping[str, Sequence[int]], title: str
) -> str:
    """Chart of one goal: presence as a line with the threshold dashed, best scores as dots, number of
    boxes as bars, and below a row of ticks for each entry of `marks` (name to frame numbers).

    last: number of the last frame of the run; least: presence threshold.
    """
    top, tall, bars = 14, 110, 34
    low = top + tall
    rows = [(name, numbers) for name, numbers in marks.items() if numbers]
    height = low + 12 + bars + 16 * len(rows) + 24
    parts = [*_axis(top, tall), _threshold(least, top, tall)]
    x = _places(track.numbers, last)
    parts += _line(x, track.present, top, tall)
    parts += [
        _dot(px, low - tall * value, f"frame {number}: best score {value:.3f}")
        for px, value, number in _thinned(x, track.score, track.numbers)
    ]
    base = low + 12 + bars
    most = max(1, int(track.boxes.max(initial=0)))
    wide = max(1.0, (WIDTH - LEFT - RIGHT) / max(1, last + 1) - 0.5)
    parts += [
        _bar(px - wide / 2, base, wide, bars * count / most, f"frame {number}: {int(count)} boxes")
        for px, count, number in _thinned(x, track.boxes.astype(float), track.numbers)
        if count
    ]
    parts.append(f'<text class="tick" x="{LEFT - 6}" y="{base - bars + 9}" text-anchor="end">{most}</text>')
    parts.append(f'<text class="tick" x="{LEFT - 6}" y="{base}" text-anchor="end">boxes</text>')
    for place, (name, numbers) in enumerate(rows):
        y = base + 14 + 16 * place
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts += [
            _bar(px - 1.5, y + 6, 3, 11, f"frame {number}", f"mark {escape(name)}")
            for px, number in zip(_places(np.array(numbers), last), numbers)
        ]
    parts.append(f'<text class="tick" x="{LEFT}" y="{height - 4}">frame 0</text>')
    parts.append(
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">frame {last}</text>'
    )
    return _svg(parts, height, title)


def histogram(values: Sequence[float], title: str) -> str:
    """Histogram of a stage's times, from 0 to twice the 95th percentile; larger values count in the last
    bin."""
    times = np.asarray(values, np.float64)
    limit = min(float(times.max()), 2 * float(np.percentile(times, 95))) or 1.0
    counts, edges = np.histogram(np.minimum(times, limit), bins=24, range=(0.0, limit))
    tall, top, low = 70, 6, 76
    step = (WIDTH / 2 - LEFT - RIGHT) / len(counts)
    parts = []
    for place, count in enumerate(counts):
        says = f"{edges[place]:.1f} to {edges[place + 1]:.1f} ms: {count} frames"
        parts.append(_bar(LEFT + step * place + 1, low, step - 1, tall * count / counts.max(), says))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH / 2 - RIGHT}" y1="{low}" y2="{low}"/>')
    parts.append(f'<text class="tick" x="{LEFT - 6}" y="{top + 8}" text-anchor="end">{counts.max()}</text>')
    parts.append(f'<text class="tick" x="{LEFT}" y="{low + 14}">0</text>')
    parts.append(
        f'<text class="tick" x="{WIDTH / 2 - RIGHT}" y="{low + 14}" text-anchor="end">{limit:.1f} ms</text>'
    )
    return _svg(parts, low + 20, title, WIDTH // 2)


def spark(track: ChartTrack, last: int, title: str) -> str:
    """Sparkline of presence over the run."""
    width, tall = 120, 22
    x = _places(track.numbers, last, 1, width - 1)
    points = " ".join(f"{px:.1f},{tall - 1 - (tall - 2) * value:.1f}" for px, value in zip(x, track.present))
    return (
        f'<svg class="spark" viewBox="0 0 {width} {tall}" width="{width}" height="{tall}" role="img" '
        f'aria-label="{escape(title)}">'
        f'<polyline class="line" points="{points}"/></svg>'
    )


def _places(
    numbers: NDArray[Any], last: int, start: float = LEFT, end: float = WIDTH - RIGHT
) -> NDArray[Any]:
    return start + (end - start) * (np.asarray(numbers, np.float64) + 0.5) / (last + 1)


def _line(x: NDArray[Any], values: NDArray[Any], top: float, tall: float) -> list[str]:
    if not len(x):
        return []
    parts = []
    groups = np.array_split(np.arange(len(x)), min(COLUMNS, len(x)))
    y = top + tall * (1 - values)
    if len(groups) < len(x):
        upper = " ".join(f"{x[group].mean():.1f},{y[group].min():.1f}" for group in groups)
        lower = " ".join(f"{x[group].mean():.1f},{y[group].max():.1f}" for group in reversed(groups))
        parts.append(f'<polygon class="band" points="{upper} {lower}"/>')
    points = " ".join(f"{x[group].mean():.1f},{y[group].mean():.1f}" for group in groups)
    return [*parts, f'<polyline class="line" points="{points}"/>']


def _thinned(x: NDArray[Any], values: NDArray[Any], numbers: NDArray[Any]) -> list[tuple[float, float, int]]:
    """At most one mark per column: the one with the lowest value, which is the most critical."""
    kept = []
    for group in np.array_split(np.arange(len(x)), max(1, min(COLUMNS, len(x)))):
        group = group[np.isfinite(values[group])]
        if len(group):
            best = group[values[group].argmin()]
            kept.append((float(x[best]), float(values[best]), int(numbers[best])))
    return kept


def _dot(x: float, y: float, says: str) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"><title>{says}</title></circle>'


def _bar(x: float, base: float, wide: float, tall: float, says: str, look: str = "bar") -> str:
    """A bar on a base line."""
    place = f'x="{x:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect class="{look}" {place}><title>{says}</title></rect>'


def _axis(top: float, tall: float) -> list[str]:
    parts = []
    for value in (0.0, 0.5, 1.0):
        y = top + tall * (1 - value)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    return parts


def _threshold(least: float, top: float, tall: float) -> str:
    y = top + tall * (1 - least)
    return (
        f'<line class="least" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
        f"<title>presence that is needed: {least:g}</title></line>"
    )


def _svg(parts: Sequence[str], height: float, title: str, width: int = WIDTH) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )
