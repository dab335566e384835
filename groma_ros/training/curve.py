"""The learning curve of a run as SVG, from the logs in its folder: `python -m groma_ros.training.curve
runs/tiny --out curve.svg`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

STAGES = ("detection", "alignment", "language")
_SHOWN = {
    "detection": ("boxes", "kind", "kind_right", "colour_right"),
    "alignment": ("answer", "pointing"),
    "language": ("answer", "pointing"),
}
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 220, 50, 40, 40
_COLOURS = ("#1a66cc", "#c2410c", "#15803d", "#7e22ce")
_STYLE = (
    "text{font:12px "
    "system-ui,sans-serif;fill:#333}.frame{fill:none;stroke:#999}.line{fill:none;stroke-width:1.6}.back{fill:#fff}"
)


@dataclass(frozen=True)
class Series:
    """One line of a panel. points: (updates, value); marks: measured on held-out scenes, likewise."""

    name: str
    points: Sequence[tuple[float, float]]
    marks: Sequence[tuple[float, float]] = ()


def read_log(path: Path, names: Sequence[str]) -> list[Series]:
    """The named figures of a stage's log, and those that were measured on held-out scenes under a name that
    belongs to them."""
    rows = [json.loads(line) for line in path.read_text().split("\n") if line.strip()]
    held = {"kind_right": "kind", "colour_right": "colour"}
    series = []
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        own = held.get(name, "")
        marks = [(row["step"], row["held_out"][own]) for row in rows if own in row.get("held_out", {})]
        series.append(Series(name.replace("_", " "), points, marks))
    return [one for one in series if one.points]


def curve_svg(panels: Sequence[tuple[str, Sequence[Series]]]) -> str:
    """Panels side by side, each with its title; a dot is a measurement on held-out scenes."""
    width = len(panels) * (_LEFT + _WIDTH + _GAP)
    drawn = "".join(
        _panel(title, series, index * (_LEFT + _WIDTH + _GAP) + _LEFT)
        for index, (title, series) in enumerate(panels)
    )
    size = f'viewBox="0 0 {width} {_HEIGHT + 110}" width="{width}" height="{_HEIGHT + 110}"'
    back = f'<rect class="back" width="{width}" height="{_HEIGHT + 110}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'role="img"><style>{_STYLE}</style>{back}{drawn}</svg>\n'
    )


def _panel(title: str, series: Sequence[Series], left: int) -> str:
    every = [point for one in series for point in (*one.points, *one.marks)]
    last, top = max(step for step, _ in every), max(1.0, max(value for _, value in every))

    def place(point: tuple[float, float]) -> str:
        return f"{left + _WIDTH * point[0] / last:.1f},{_TOP + _HEIGHT * (1 - point[1] / top):.1f}"

    parts = [f'<text x="{left}" y="{_TOP - 14}">{escape(title)}</text>']
    parts.append(f'<rect class="frame" x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>')
    for tick in range(5):
        y = _TOP + _HEIGHT * (1 - tick / 4)
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{top * tick / 4:.2f}</text>')
        x, below = left + _WIDTH * tick / 4, _TOP + _HEIGHT + 18
        parts.append(f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{last * tick / 4:.0f}</text>')
    for index, one in enumerate(series):
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(
            f'<polyline class="line" stroke="{colour}" points="{" ".join(map(place, one.points))}"/>'
        )
        for mark in one.marks:
            across, down = place(mark).split(",")
            parts.append(
                f'<circle cx="{across}" cy="{down}" r="4" '
                f'fill="{colour}"><title>{mark[1]:.3f}</title></circle>'
            )
        row, column = divmod(index, 2)
        place_of_name = f'x="{left + 150 * column}" y="{_TOP + _HEIGHT + 40 + 18 * row}"'
        parts.append(f'<text {place_of_name} style="fill:{colour}">{escape(one.name)}</text>')
    return "".join(parts)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="Draw the learning curve of a training run.")
    parser.add_argument("run", type=Path, help="folder of the run, with its .jsonl logs")
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write")
    given = parser.parse_args()
    logs = {stage: given.run / f"{stage}.jsonl" for stage in STAGES}
    panels = [
        (f"{stage}, over updates", read_log(path, _SHOWN[stage]))
        for stage, path in logs.items()
        if path.exists()
    ]
    if not panels:
        raise SystemExit(f"There is no log of a stage in {given.run}.")
    given.out.write_text(curve_svg(panels))


if __name__ == "__main__":
    main()
