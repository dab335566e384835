"""Reliability diagrams as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groma_ros.evaluation.statistics import Bin
from groma_ros.svg_plots import STYLE, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES = (4.2, 5.2)


@dataclass(frozen=True)
class Panel:
    """One reliability diagram."""

    title: str
    bins: Sequence[Bin]
    """From `statistics.reliability`."""
    stated_label: str
    """Label of the axis of predicted probabilities."""
    happened_label: str
    """Label of the axis of observed shares."""


def reliability_svg(panels: Sequence[Panel]) -> str:
    """Draw diagrams side by side: observed share over predicted probability, and below it the number of
    predictions per bin on an axis of its own (logarithmic)."""
    figure = new_figure(_PANEL_INCHES[0] * len(panels), _PANEL_INCHES[1])
    import matplotlib

    with matplotlib.rc_context(STYLE):
        axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(4, 1))
        for column, panel in enumerate(panels):
            _reliability(axes[0, column], panel, column)
            _counts(axes[1, column], panel, column)
    return svg(figure)


def _reliability(axes: Axes, panel: Panel, column: int) -> None:
    axes.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1)
    axes.plot(
        [item.stated for item in panel.bins],
        [item.happened for item in panel.bins],
        marker="o",
        markersize=4,
        linewidth=1.2,
        gid=f"reliability-{column}",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel=panel.happened_label)
    axes.set_title(panel.title, fontsize=10)


def _counts(axes: Axes, panel: Panel, column: int) -> None:
    bars = axes.bar(
        [item.low for item in panel.bins],
        [item.count for item in panel.bins],
        [item.high - item.low for item in panel.bins],
        align="edge",
        edgecolor="white",
        linewidth=0.5,
    )
    for index, bar in enumerate(bars):
        bar.set_gid(f"count-{column}-{index}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set(xlabel=panel.stated_label, ylabel="count")
