"""Learning curves of a run as SVG, from the logs in its folder: `python -m groma_ros.training.curve runs/tiny
--out curve.svg`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groma_ros.atomic_write import write_file
from groma_ros.svg_plots import STYLE, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES: Mapping[str, Sequence[str]] = {
    "detection": ("boxes", "kind"),
    "alignment": ("answer", "pointing"),
    "language": ("answer", "pointing"),
    "joint": ("boxes", "kind", "answer", "pointing"),
    "proposer": ("boxes",),
    "refiner": ("boxes",),
}
"""Losses shown for each stage; `proposer` and `refiner` are logs of stage 1 under other names, for runs that
trained these parts alone beside another run's stages."""
ACCURACIES = ("kind_right", "colour_right", "iou_before", "iou_after")
"""Accuracies, and IoUs of boxes, on training batches; those on held-out scenes are all shown."""
_PANEL_INCHES = (4.2, 5.4)


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    name: str
    points: Sequence[tuple[float, float]]
    """(update, value)."""
    held_out: bool = False
    """Whether the values were measured on held-out scenes."""


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage."""

    stage: str
    losses: Sequence[Series]
    accuracies: Sequence[Series]


def read_log(path: Path, stage: str) -> StageCurves:
    """Read the log of a stage."""
    rows = [json.loads(line) for line in path.read_text().split("\n") if line.strip()]
    training = [row for row in rows if "held_out" not in row]
    measured = [{"step": row["step"], **_flat(row["held_out"])} for row in rows if "held_out" in row]
    names = list(dict.fromkeys(name for row in measured for name in row if name != "step"))
    accuracies = [_series(training, name) for name in ACCURACIES]
    accuracies += [_series(measured, name, held_out=True) for name in names]
    losses = [_series(training, name) for name in LOSSES[stage]]
    return StageCurves(stage, *([one for one in group if one.points] for group in (losses, accuracies)))


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a measurement, those of a nested table by their own names."""
    found: dict[str, float] = {}
    for name, value in values.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def _series(rows: Sequence[Mapping[str, Any]], name: str, held_out: bool = False) -> Series:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return Series(name.replace("_", " "), points, held_out)


def curve_svg(stages: Sequence[StageCurves]) -> str:
    """Plot the stages side by side, losses in the upper and accuracies in the lower row; markers are
    measurements on held-out scenes."""
    figure = new_figure(_PANEL_INCHES[0] * len(stages), _PANEL_INCHES[1])
    import matplotlib

    with matplotlib.rc_context(STYLE):
        axes = figure.subplots(2, len(stages), squeeze=False, sharex="col")
        for column, stage in enumerate(stages):
            upper, lower = axes[0, column], axes[1, column]
            upper.set_title(stage.stage, fontsize=10)
            _plot(upper, stage.losses, "loss", f"{stage.stage}-loss")
            _plot(lower, stage.accuracies, "accuracy", f"{stage.stage}-accuracy")
            upper.set_ylim(bottom=0)
            lower.set(ylim=(0, 1.02), xlabel="updates")
    return svg(figure)


def _plot(axes: Axes, series: Sequence[Series], label: str, gid: str) -> None:
    for index, one in enumerate(series):
        name = f"{one.name} (held out)" if one.held_out else one.name
        style: dict[str, Any] = {"marker": "o", "markersize": 3} if one.held_out else {}
        axes.plot(*zip(*one.points), label=name, linewidth=1, gid=f"{gid}-{index}", **style)
    axes.set_ylabel(label)
    if series:
        axes.legend(fontsize=7, ncols=2)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Draw the learning curves of a training run.")
    parser.add_argument("run", type=Path, help="folder of the run, with its .jsonl logs")
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write")
    given = parser.parse_args()
    logs = {stage: given.run / f"{stage}.jsonl" for stage in LOSSES}
    stages = [read_log(path, stage) for stage, path in logs.items() if path.exists()]
    if not stages:
        raise SystemExit(f"There is no log of a stage in {given.run}.")
    write_file(given.out, curve_svg(stages).encode())


if __name__ == "__main__":
    main()
