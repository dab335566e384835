"""Draws docs/groma-tiny-runs.svg: what the runs of groma-tiny learnt, by world and by wording.

The figures are those of docs/measurements/groma-tiny-runs.yaml; each line is a row of its tables, each column
a run.

    .venv/bin/python tools/draw_runs.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from groma_ros.atomic_write import write_file
from groma_ros.svg_plots import STYLE, new_figure, svg

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "measurements" / "groma-tiny-runs.yaml"
_TITLES = {"worlds": "by world", "wordings": "by wording"}
_NO_RUNS = ("scenes", "goals", "aim")  # columns that are not a run


def lines(table: dict[str, Any]) -> tuple[list[str], dict[str, list[tuple[int, float]]]]:
    """Names of a table's runs, and for each row the points (number of the run, share of goals)."""
    runs = [(place, name) for place, name in enumerate(table["columns"]) if name not in _NO_RUNS]
    found = {
        str(row[0]).split(" (")[0]: [
            (number, float(row[place])) for number, (place, _) in enumerate(runs) if row[place] != ""
        ]
        for row in table["rows"]
    }
    return [name for _, name in runs], found


def runs_svg(tables: dict[str, Any]) -> str:
    """Plot the tables side by side."""
    figure = new_figure(10, 4.2)
    import matplotlib

    with matplotlib.rc_context(STYLE):
        for axes, (key, title) in zip(figure.subplots(1, len(_TITLES), sharey=True), _TITLES.items()):
            runs, rows = lines(tables[key])
            for index, (name, points) in enumerate(rows.items()):
                axes.plot(
                    *zip(*points), marker="o", markersize=3, linewidth=1, label=name, gid=f"{key}-{index}"
                )
            axes.set_title(title, fontsize=10)
            axes.set_xticks(
                range(len(runs)), [name.removesuffix(" run") for name in runs], rotation=30, ha="right"
            )
            axes.legend(fontsize=7, loc="lower right")
        figure.axes[0].set(ylim=(0, 1.02), ylabel="goals answered right")
    return svg(figure)


if __name__ == "__main__":
    write_file(
        ROOT / "docs" / "groma-tiny-runs.svg",
        runs_svg(yaml.safe_load(FIGURES.read_text())["tables"]).encode(),
    )
