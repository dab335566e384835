"""Deterministic SVG files from matplotlib, which is imported only when something is drawn."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {
    "svg.hashsalt": "groma_ros",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
}
"""matplotlib settings of all plots. The fixed salt makes ids in the SVG independent of the process."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of a size in inches.

    Raises ValueError if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "Plots need the Python package matplotlib; install it with python -m pip install "
            "'groma_ros[plots]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> str:
    """Render a figure as an SVG document, the same text for the same figure and version of matplotlib."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "groma_ros"})
    return stream.getvalue()
