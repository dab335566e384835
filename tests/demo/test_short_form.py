"""Checks of the short form of the demonstrations on results that fail them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from demo import short_form
from demo.episodes import Row, summary
from demo.short_form import Expected, form_problems, picture_problems, problems
from groma_ros.client.demo.processes import Child

GRASP = Expected("grasp", "wrong_lift", ("success", "nothing lifted", "wrong lift", "motion"), 7, 1, 0, 2)
ROWS = [
    Row(7, "the red can", "attribute", True, "success"),
    Row(8, "the lemon", "attribute", True, "nothing lifted", "missed"),
    Row(9, "the box", "relation", True, "success"),
    Row(10, "the cup", "absent", False, "success"),
    Row(11, "the loaf", "all", True, "wrong lift", "wrong object", wrong=True),
]


def good() -> dict[str, Any]:
    return copy.deepcopy(summary(ROWS, "wrong_lift"))


def test_results_that_hold() -> None:
    assert problems(good(), GRASP) == []


def _seed(document: dict[str, Any]) -> None:
    document["rows"][0]["seed"] = 3


def _lost_row(document: dict[str, Any]) -> None:
    del document["rows"][1]


def _unknown(document: dict[str, Any]) -> None:
    document["rows"][1]["outcome"] = "confused"


def _no_cause(document: dict[str, Any]) -> None:
    document["rows"][1]["cause"] = ""


def _node_lost(document: dict[str, Any]) -> None:
    document["rows"][1]["cause"] = "node lost"


def _count(document: dict[str, Any]) -> None:
    document["success"] = 3


def _causes(document: dict[str, Any]) -> None:
    document["causes"] = {"missed": 2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_seed, "The seeds are [3, 8, 9, 10, 11] and not [7, 8, 9, 10, 11]."),
        (_lost_row, "The key 'episodes' is 5; its rows say 4."),
        (_unknown, "Seed 8 has the unknown outcome 'confused'."),
        (_no_cause, "Seed 8 has the outcome 'nothing lifted' and cause ''."),
        (_node_lost, "Seed 8 ended with 'node lost': a process or a topic failed."),
        (_count, "The key 'success' is 3; its rows say 2."),
        (_causes, "The key 'causes' is {'missed': 2}; its rows say {'missed': 1, 'wrong object': 1}."),
    ],
)
def test_results_that_do_not_hold(change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    document = good()
    change(document)
    assert sentence in problems(document, GRASP)


def test_no_more_successes_than_the_floor() -> None:
    rows = [ROWS[0], *(Row(8 + i, "x", "all", True, "nothing lifted", "missed") for i in range(4))]
    (sentence,) = problems(summary(rows, "wrong_lift"), GRASP)
    assert sentence.startswith("1 of 5 episodes succeed; going for a random object makes 1 succeed")
    assert problems(summary(rows, "wrong_lift"), replace(GRASP, floor=None)) == []


def test_motion_on_an_absent_goal() -> None:
    moved = Row(10, "the cup", "absent", False, "motion", "absent goal answered", moved=True)
    (sentence,) = problems(summary([*ROWS[:3], moved, ROWS[4]], "wrong_lift"), GRASP)
    assert sentence == "1 of 1 goals that mean nothing there were acted on; at most 0 may be."


def test_too_many_wrong_lifts() -> None:
    wrong = [replace(ROWS[4], seed=seed) for seed in (7, 8, 9, 10)]
    (sentence,) = problems(summary([*wrong, ROWS[4]], "wrong_lift"), replace(GRASP, floor=None))
    assert sentence == "The key 'wrong_lift' counts 5 of 5 episodes; at most 2 may be."
    rows = [*ROWS[:3], replace(ROWS[4], seed=10), ROWS[4]]
    assert problems(summary(rows, "wrong_lift"), GRASP) == []


def test_a_base_that_never_drives() -> None:
    outcomes = ("success", "not arrived", "false arrival")
    navigate = Expected("navigate", "false_arrival", outcomes, 7, None, 0, 3, 1.0)
    rows = [
        Row(7 + i, "the door", "all", True, "not arrived", "not found", figures={"path": 0.1 * i})
        for i in range(4)
    ]
    lost = Row(11, "the door", "all", True, "not arrived", "not found")  # without a score
    (sentence,) = problems(summary([*rows, lost], "false_arrival"), navigate)
    assert sentence == "The longest path of all episodes is 0.30 m; at least 1.0 m must be driven in one."
    rows[2] = replace(rows[2], figures={"path": 1.0})
    assert problems(summary([*rows, lost], "false_arrival"), navigate) == []


def test_another_form() -> None:
    document = good()
    del document["wrong_lift"]
    document["absent"] = True
    document["rows"][2]["goal"] = None
    assert form_problems(document, "wrong_lift") == [
        "The key 'wrong_lift' is None and no whole number.",
        "The key 'absent' is True and no whole number.",
        "Row 2 has 'goal': None, which is no str.",
    ]
    assert form_problems({**good(), "rows": "none", "causes": []}, "wrong_lift") == [
        "The key 'causes' is no mapping.",
        "The key 'rows' is no list of mappings.",
    ]


def test_a_file_of_another_kind() -> None:
    assert problems([1], GRASP) == ["The file is no mapping."]  # type: ignore[arg-type]


def test_pictures(tmp_path: Path) -> None:
    assert len(picture_problems(tmp_path, "grasp")) == 2
    picture = np.zeros((48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "grasp.png"), picture)
    writer = cv2.VideoWriter(str(tmp_path / "grasp.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
    writer.write(picture)
    writer.release()
    assert picture_problems(tmp_path, "grasp") == []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Expected]:
    """Make the children of the short form run a few lines instead of a demonstration."""

    class Script(Child):
        def __init__(self, module: str, arguments: Any, log: Path, environment: Any) -> None:
            super().__init__("stand_in_run", arguments, log, {"PYTHONPATH": str(tmp_path)})

    monkeypatch.setattr(short_form, "Child", Script)

    def make(text: str) -> Expected:
        (tmp_path / "stand_in_run.py").write_text(text)
        return GRASP

    return make


def test_a_demonstration_that_ends_or_hangs(tmp_path: Path, stand_in: Callable[[str], Expected]) -> None:
    ends = stand_in("import sys; sys.exit('demo-grasp: The simulator has ended.')")
    (sentence,) = short_form.run(tmp_path / "out", 60, [ends])
    assert sentence == "demo-grasp ended with status 1; it last said: demo-grasp: The simulator has ended."
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["grasp"]
    hangs = stand_in("import time; print('starting', flush=True); time.sleep(600)")
    (sentence,) = short_form.run(tmp_path / "out", 2, [hangs])
    assert "still runs after 2 s" in sentence
    log = tmp_path / "out" / "grasp" / "run.log"
    first = log.read_text()
    assert first.startswith("starting\n")
    short_form.run(tmp_path / "out", 60, [stand_in("import sys; sys.exit('once more')")], "-2")
    assert log.read_text() == first  # the first results are kept
    assert (tmp_path / "out" / "grasp-2" / "run.log").read_text() == "once more\n"


def test_further_options_reach_the_demonstration(tmp_path: Path, stand_in: Callable[[str], Expected]) -> None:
    shows = stand_in("import sys; print(sys.argv[1:])")
    short_form.run(tmp_path / "out", 60, [replace(shows, options=("--search-seconds", "75"))])
    printed = (tmp_path / "out" / "grasp" / "run.log").read_text()
    assert "'--first-seed', '7'" in printed and "'--search-seconds', '75'" in printed


@pytest.mark.parametrize("text", ["", "open(sys.argv[sys.argv.index('--out') + 1] + '/grasp.json', 'w')"])
def test_a_demonstration_that_ends_well_without_results(
    text: str, tmp_path: Path, stand_in: Callable[[str], Expected]
) -> None:
    (sentence,) = short_form.run(tmp_path / "out", 60, [stand_in(f"import sys; {text}")])
    assert sentence.startswith("demo-grasp ended with status 0 and left no results that can be read: ")


@pytest.mark.parametrize("heals", [True, False])
def test_what_does_not_hold_is_run_once_more(
    heals: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, list[str]]] = []

    def run(out: Path, seconds: float, expected: Any = short_form.EXPECTED, suffix: str = "") -> list[str]:
        runs.append((suffix, [item.name for item in expected]))
        return [] if heals and len(runs) > 1 else ["demo-navigate: 0 of 4 episodes succeed"]

    monkeypatch.setattr(short_form, "run", run)
    monkeypatch.setattr("sys.argv", ["short_form", "--out", str(tmp_path)])
    (tmp_path / "grasp-2").mkdir()  # of an earlier call
    assert short_form.main() == (0 if heals else 1)
    assert list(tmp_path.iterdir()) == []
    assert runs == [("", ["grasp", "navigate"]), ("-2", ["navigate"])]
