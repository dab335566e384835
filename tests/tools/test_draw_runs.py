"""The plot of groma-tiny's runs shows the measurements in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.tools.loading import load_tool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def draw_runs() -> ModuleType:
    return load_tool("draw_runs")


def test_rows_become_lines_of_the_runs_that_were_measured(draw_runs: ModuleType) -> None:
    table = {
        "columns": ["scenes", "goals", "fifth", "sixth run", "seventh", "aim"],
        "rows": [["rooms (of one seed)", 90, 0.5, "", 0.75, 0.9]],
    }
    assert draw_runs.lines(table) == (["fifth", "sixth run", "seventh"], {"rooms": [(0, 0.5), (2, 0.75)]})


def test_the_plot_in_the_documentation_is_of_its_table(draw_runs: ModuleType) -> None:
    drawn = (ROOT / "docs" / "groma-tiny-runs.svg").read_text()
    again = draw_runs.runs_svg(yaml.safe_load(draw_runs.FIGURES.read_text())["tables"])
    assert _coordinates(drawn) == _coordinates(again), "python tools/draw_runs.py"
    assert len(_coordinates(drawn)) == 11


def _coordinates(svg: str) -> dict[str, list[str]]:
    """Coordinates of each line, by its id, without decimals."""
    lines = re.findall(r'<g id="((?:worlds|wordings)-\d+)">\s*<path d="([^"]+)"', svg)
    return {name: re.findall(r"(\d+)(?:\.\d+)?", path) for name, path in lines}
