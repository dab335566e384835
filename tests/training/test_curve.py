"""Learning curves from logs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from groma_ros.training.curve import LOSSES, curve_svg, main, read_log

SVG = "{http://www.w3.org/2000/svg}"
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        {"step": 10, "boxes": 2.0, "kind": 1.0, "kind_right": 0.5},
        {"step": 20, "boxes": 1.0, "kind": 0.5, "kind_right": 0.8},
        {"step": 20, "held_out": {"kind": 0.75, "answers": {"plural": 0.9, "count": None}}},
    ]
    (tmp_path / "detection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_losses_and_accuracies_are_separate(run: Path) -> None:
    found = read_log(run / "detection.jsonl", "detection")
    assert {one.name: one.points for one in found.losses} == {
        "boxes": [(10, 2.0), (20, 1.0)],
        "kind": [(10, 1.0), (20, 0.5)],
    }
    assert [(one.name, one.points, one.held_out) for one in found.accuracies] == [
        ("kind right", [(10, 0.5), (20, 0.8)], False),
        ("kind", [(20, 0.75)], True),
        ("plural", [(20, 0.9)], True),
    ]


def test_the_command_draws_every_series_and_repeats_the_bytes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.svg", "two.svg"):
        monkeypatch.setattr(sys, "argv", ["curve", str(run), "--out", str(run / name)])
        main()
    assert (run / "one.svg").read_bytes() == (run / "two.svg").read_bytes()
    root = ElementTree.parse(run / "one.svg").getroot()
    groups = {group.get("id", "") for group in root.iter(f"{SVG}g")}
    lines = {name.removeprefix("detection-") for name in groups if name.startswith("detection-")}
    assert lines == {"loss-0", "loss-1", "accuracy-0", "accuracy-1", "accuracy-2"}
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"detection", "loss", "accuracy", "updates", "boxes", "plural (held out)"} <= texts


def test_a_folder_without_logs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["curve", str(tmp_path), "--out", str(tmp_path / "curve.svg")])
    with pytest.raises(SystemExit, match="no log of a stage"):
        main()


def test_the_curve_in_the_documentation_shows_its_measurements() -> None:
    logs = DOCS / "measurements" / "groma-tiny-curve"
    stages = [
        read_log(logs / f"{stage}.jsonl", stage) for stage in LOSSES if (logs / f"{stage}.jsonl").exists()
    ]
    assert [stage.stage for stage in stages] == ["detection", "alignment", "refiner"]
    drawn = (DOCS / "groma-tiny-curve.svg").read_text()
    again = (
        f"python -m groma_ros.training.curve {logs.relative_to(DOCS.parent)} --out docs/groma-tiny-curve.svg"
    )
    series = [
        f"{stage.stage}-{kind}-{number}"
        for stage in stages
        for kind, lines in (("loss", stage.losses), ("accuracy", stage.accuracies))
        for number in range(len(lines))
    ]
    found = _lines(drawn)
    assert found == _lines(curve_svg(stages)), again
    assert sorted(found) == sorted(series) and len(series) == 14
    # The plot leaves out a few points that lie on the line between their neighbours.
    assert all(found.values()) and 2 * 280 < len(found["alignment-loss-0"]) <= 2 * 300


def _lines(svg: str) -> dict[str, list[str]]:
    """Coordinates of each series in a plot, by its id, without decimals."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        name, path = group.get("id", ""), group.find(f"{SVG}path")
        if re.fullmatch(r"\w+-(loss|accuracy)-\d+", name) and path is not None:
            found[name] = re.findall(r"(\d+)(?:\.\d+)?", path.get("d", ""))
    return found
