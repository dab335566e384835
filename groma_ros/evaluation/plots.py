"""Reliability diagrams and curves as SVG, light or dark as the reader's page is; no drawing library
needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from groma_ros.evaluation.statistics import Bin

_SIDE, _LEFT, _TOP, _GAP, _BARS = 260, 54, 46, 74, 54
_STYLE = (
    "text{font:12px "
    "system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:13px}.frame{fill:none;stroke:#999}"
    ".grid{stroke:#ccc;stroke-width:.5}.ideal{stroke:#888;stroke-dasharray:4 "
    "4}.line{fill:none;stroke:#1a66cc;opacity:.5}"
    ".dot{fill:#1a66cc}.bar{fill:#1a66cc;opacity:.45}.back{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.frame{stroke:#777}.grid{stroke:#444}.back{fill:#16181c}"
    ".line{stroke:#6aa8ff}.dot,.bar{fill:#6aa8ff}}"
)


@dataclass(frozen=True)
class Panel:
    """One reliability diagram. title: one line; bins: of `statistics.reliability`; said, true: what the axes
    count, in words."""

    title: str
    bins: Sequence[Bin]
    said: str
    true: str


def reliability_svg(panels: Sequence[Panel]) -> str:
    """The diagrams side by side: what was stated against what happened, with the number of statements (log
    scale) below each."""
    width = len(panels) * (_LEFT + _SIDE) + (len(panels) - 1) * (_GAP - _LEFT) + 24
    height = _TOP + _SIDE + 26 + _BARS + 44
    parts = [_panel(panel, index * (_SIDE + _GAP) + _LEFT) for index, panel in enumerate(panels)]
    label = escape("; ".join(panel.title for panel in panels), {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" '
        f'aria-label="{label}"><style>{_STYLE}</style><rect class="back" width="{width}" '
        f'height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _panel(panel: Panel, left: float) -> str:
    def x(value: float) -> float:
        return round(left + value * _SIDE, 2)

    def y(value: float) -> float:
        return round(_TOP + (1 - value) * _SIDE, 2)

    parts = [f'<text class="title" x="{left}" y="{_TOP - 16}">{escape(panel.title)}</text>']
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<path class="grid" d="M{x(tick)} {y(0)}V{y(1)}M{x(0)} {y(tick)}H{x(1)}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x(tick)}" y="{y(0) + _BARS + 40}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<rect class="frame" x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>')
    parts.append(f'<path class="ideal" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>')
    points = [(x(item.stated), y(item.happened)) for item in panel.bins]
    parts.append(f'<polyline class="line" points="{" ".join(f"{a},{b}" for a, b in points)}"/>')
    for (a, b), item in zip(points, panel.bins, strict=True):
        said = (
            f"{item.low:.2f} to {item.high:.2f}: {item.count} statements, stated {item.stated:.3f}, true "
            f"{item.happened:.3f}"
        )
        size = 2 + 1.5 * math.log10(item.count)
        parts.append(
            f'<circle class="dot" cx="{a}" cy="{b}" r="{size:.1f}"><title>{escape(said)}</title></circle>'
        )
    parts += _counts(panel.bins, x, y(0) + 24)
    parts.append(
        f'<text x="{x(0.5)}" y="{y(0) + _BARS + 58}" text-anchor="middle">{escape(panel.said)}</text>'
    )
    middle = y(0.5)
    parts.append(
        f'<text transform="translate({left - 40} {middle}) rotate(-90)" '
        f'text-anchor="middle">{escape(panel.true)}</text>'
    )
    return "".join(parts)


def _counts(bins: Sequence[Bin], x: Callable[[float], float], top: float) -> list[str]:
    """Bars whose height grows with the number of digits of a count."""
    most = max((math.log10(item.count + 1) for item in bins), default=1.0)
    bars = []
    for item in bins:
        tall = round(_BARS * math.log10(item.count + 1) / most, 2)
        left, right = x(item.low), x(item.high)
        bars.append(
            f'<rect class="bar" x="{left}" y="{top + _BARS - tall:.2f}" width="{right - left:.2f}" '
            f'height="{tall}">'
            f"<title>{item.count}</title></rect>"
        )
    return bars
