from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from groma_ros.training.curve import main, read_log


def test_a_log_becomes_lines_and_held_out_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"step": 10, "boxes": 2.0, "kind": 1.0, "kind_right": 0.5},
        {"step": 20, "boxes": 1.0, "kind": 0.5, "kind_right": 0.8},
        {"step": 20, "held_out": {"kind": 0.75, "colour": 0.9}},
    ]
    log = tmp_path / "detection.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    series = {one.name: one for one in read_log(log, ("boxes", "kind_right", "norm"))}
    assert set(series) == {"boxes", "kind right"}
    assert series["boxes"].points == [(10, 2.0), (20, 1.0)] and series["boxes"].marks == []
    assert series["kind right"].marks == [(20, 0.75)]
    monkeypatch.setattr(sys, "argv", ["curve", str(tmp_path), "--out", str(tmp_path / "curve.svg")])
    main()
    root = ElementTree.parse(tmp_path / "curve.svg").getroot()
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3 and len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 1
    assert lines[0].attrib["points"] == "200.0,40.0 350.0,150.0"  # boxes: 2 is the top, 20 the last update


def test_a_folder_without_logs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["curve", str(tmp_path), "--out", str(tmp_path / "curve.svg")])
    with pytest.raises(SystemExit, match="no log of a stage"):
        main()
