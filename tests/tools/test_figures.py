"""Tables of measurements in README and docs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.loading import load_tool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return load_tool("figures")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one page and one measurement, whose table has not been written yet."""
    (tmp_path / "docs" / "measurements").mkdir(parents=True)
    (tmp_path / "engine.json").write_text(json.dumps({"test": {"recall": 0.99614}}))
    (tmp_path / "docs" / "measurements" / "speed.yaml").write_text(
        "command: groma bench\ndate: 2026-11-24\nmachine: two cores\ndata: engine.json\n"
        "tables:\n  one:\n    columns: [goals, ms]\n"
        '    rows:\n      - [1, 18.170]\n      - [recall, "{test.recall:.3f}"]\n'
    )
    (tmp_path / "README.md").write_text(
        "# Speed\n\n<!-- figures: speed/one -->\n<!-- end figures -->\n\nafter\n"
    )
    return tmp_path


def test_every_table_of_readme_and_docs_is_as_measured(figures: ModuleType) -> None:
    assert [page.name for page, _ in figures.stale(ROOT)] == []


def test_every_measurement_is_shown_on_a_page(figures: ModuleType) -> None:
    shown = {
        (match["name"], match["table"])
        for page in figures.pages(ROOT)
        for match in figures.BLOCK.finditer(page.read_text())
    }
    kept = {
        (path.stem, table)
        for path in (ROOT / figures.MEASUREMENTS).glob("*.yaml")
        for table in figures.load(path)["tables"]
    }
    assert kept == shown and len(kept) >= 8


def test_a_table_is_written_with_its_source_and_stays(figures: ModuleType, project: Path) -> None:
    ((page, text),) = figures.stale(project)
    assert text == (
        "# Speed\n\n<!-- figures: speed/one -->\n| goals | ms |\n| --- | --- |\n| 1 | 18.170 |\n"
        "| recall | 0.996 |\n\n"
        "*`groma bench`; two cores; 2026-11-24.*\n<!-- end figures -->\n\nafter\n"
    )
    page.write_text(text)
    assert list(figures.stale(project)) == []
    page.write_text(text.replace("18.170", "17"))
    assert [path.name for path, _ in figures.stale(project)] == ["README.md"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("date: 2026-11-24\n", "", "table one: date is missing"),
        ("[1, 18.170]", "[1]", "a row has 1 cells"),
        ("test.recall", "test.recal", "refers to test.recal,"),
        ("  one:", "  two:", "no table 'one'; it has two"),
        ("tables:", "table:", "no mapping of tables"),
    ],
)
def test_a_measurement_that_cannot_be_used_is_named(
    figures: ModuleType, project: Path, old: str, new: str, message: str
) -> None:
    path = project / "docs" / "measurements" / "speed.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(figures.FigureError, match=message):
        list(figures.stale(project))


def test_a_marker_without_an_end_is_named(figures: ModuleType, project: Path) -> None:
    (project / "README.md").write_text("<!-- figures: speed/one -->\n")
    with pytest.raises(figures.FigureError, match="README.md has a marker"):
        list(figures.stale(project))
