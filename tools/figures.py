"""Writes measured figures into README.md and docs/: every table between `<!-- figures: FILE/TABLE -->` and
`<!-- end figures -->` comes from docs/measurements/FILE.yaml.

    .venv/bin/python tools/figures.py            # rewrite the tables (make figures)
    .venv/bin/python tools/figures.py --check    # exit with 1 where a table differs (make lint)

docs/measurements/README.md describes the form of a measurement.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = Path("docs/measurements")
REQUIRED = ("command", "date", "machine")
BLOCK = re.compile(
    r"(<!-- figures: (?P<name>[\w.-]+)/(?P<table>[\w.-]+) -->\n).*?(?=<!-- end figures -->)", re.DOTALL
)
REFERENCE = re.compile(r"\{(?P<path>[\w. ]+)(?::(?P<format>[^}]*))?\}")


class FigureError(Exception):
    """A measurement or a marker that cannot be used; the message names the file."""


def pages(root: Path) -> list[Path]:
    """The pages that may contain tables of measurements."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def rewritten(page: Path, root: Path) -> str:
    """The text of a page with every marked table rewritten. Raises FigureError."""
    text = page.read_text(encoding="utf-8")
    if text.count("<!-- figures:") != len(BLOCK.findall(text)):
        raise FigureError(f"{page.name} has a marker of figures that is malformed or has no end.")
    return BLOCK.sub(lambda match: match[1] + table(match["name"], match["table"], root), text)


def table(name: str, key: str, root: Path) -> str:
    """A Markdown table with the source of its figures below it. Raises FigureError."""
    measurement = load(root / MEASUREMENTS / f"{name}.yaml")
    tables = measurement["tables"]
    if key not in tables:
        raise FigureError(f"{name}.yaml has no table {key!r}; it has {', '.join(tables)}.")
    chosen = {**measurement, **tables[key]}
    data = json.loads((root / chosen["data"]).read_text()) if "data" in chosen else {}
    lines = [chosen["columns"], ["---"] * len(chosen["columns"]), *chosen["rows"]]
    for row in lines:
        if len(row) != len(chosen["columns"]):
            raise FigureError(f"{name}.yaml, table {key}: a row has {len(row)} cells: {row}.")
    cells = ["| " + " | ".join(filled(cell, data, name) for cell in row) + " |" for row in lines]
    source = f"*`{chosen['command'].strip()}`; {chosen['machine']}; {chosen['date']}.*"
    return "\n".join([*cells, "", source, ""])


def load(path: Path) -> dict[str, Any]:
    """A file of measurements, every scalar as its text in the file. Raises FigureError."""
    if not path.is_file():
        raise FigureError(f"{path.name} does not exist in {MEASUREMENTS}.")
    # BaseLoader keeps 0.930 as written, including its last digit.
    measurement = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # safe: it creates only texts
    if not isinstance(measurement, dict) or not isinstance(measurement.get("tables"), dict):
        raise FigureError(f"{path.name} has no mapping of tables.")
    for key, entry in measurement["tables"].items():
        lacking = [
            field for field in (*REQUIRED, "columns", "rows") if not {**measurement, **entry}.get(field)
        ]
        if lacking:
            raise FigureError(f"{path.name}, table {key}: {', '.join(lacking)} is missing.")
    return measurement


def filled(cell: str, data: Mapping[str, Any], name: str) -> str:
    """A cell with every `{path.in.data:format}` replaced by that figure. Raises FigureError."""

    def figure(match: re.Match[str]) -> str:
        value: Any = data
        for part in match["path"].split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise FigureError(f"{name}.yaml refers to {match['path']}, which its data does not have.")
            value = value[part]
        return format(value, match["format"] or "")

    return REFERENCE.sub(figure, cell)


def stale(root: Path) -> Iterator[tuple[Path, str]]:
    """Pages whose tables differ from the measurements, with the text they should have. Raises FigureError."""
    for page in pages(root):
        text = rewritten(page, root)
        if text != page.read_text(encoding="utf-8"):
            yield page, text


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tables of measurements into README.md and docs/.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with status 1 if a table is out of date"
    )
    arguments = parser.parse_args()
    try:
        changed = list(stale(ROOT))
    except FigureError as error:
        print(error, file=sys.stderr)
        return 1
    for page, text in changed:
        name = page.relative_to(ROOT)
        if arguments.check:
            print(f"The tables of {name} differ from {MEASUREMENTS}: run make figures.", file=sys.stderr)
        else:
            page.write_text(text, encoding="utf-8")
            print(f"{name}: tables written")
    return int(arguments.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
