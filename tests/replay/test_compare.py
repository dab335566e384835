"""Changes and movements between two replays."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from groma_ros.replay.compare import WHOLE_RUN, Tolerances, compare, movements
from groma_ros.replay.records import (
    BoxRecord,
    FrameRecord,
    GoalRecord,
    PlaceRecord,
    goal_record,
    read_records,
)
from groma_ros.types import Detection, Goal, Grounding

MUG = BoxRecord((10.0, 10.0, 50.0, 60.0), 0.9, "1")
CUP = BoxRecord((100.0, 10.0, 150.0, 60.0), 0.8, "2")


def goal(*boxes: BoxRecord, text: str = "mugs", present: float = 0.95) -> GoalRecord:
    return GoalRecord(text, "auto", present, 0.5, boxes)


def frame(number: int, *goals: GoalRecord) -> FrameRecord:
    return FrameRecord(number, 10 * number, 100 * number, "camera", 640, 480, True, None, "", goals)


def test_a_record_goes_through_its_line(tmp_path: Path) -> None:
    placed = replace(MUG, place=PlaceRecord((0.1, 0.2, 1.0), (0.0, 0.0, 0.0, 1.0), (0.1, 0.1, 0.2)))
    records = [
        frame(0, goal(placed, CUP), goal(text="la tasse à café", present=0.1)),
        replace(frame(1), refused="truncated"),
    ]
    assert [FrameRecord.from_document(json.loads(record.line())) for record in records] == records
    path = tmp_path / "detections.jsonl"
    path.write_text("".join(record.line() + "\n" for record in records), encoding="utf-8")
    assert read_records(path) == records
    path.write_text(records[0].line() + "\n{}\n")
    with pytest.raises(
        ValueError, match=r"Line 2 of .*detections.jsonl is not a record of a replay: it has no list of goals"
    ):
        read_records(path)


def test_an_answer_is_rounded_and_the_best_box_comes_first() -> None:
    boxes = (Detection((1.00049, 2, 3, 4), 0.25, 0, "7"), Detection((5, 6, 7, 8), 1 / 3, 1))
    record = goal_record(Grounding(Goal("mugs", "all"), boxes, 2 / 3, 0.1))
    assert record == GoalRecord(
        "mugs",
        "all",
        0.666667,
        0.1,
        (BoxRecord((5.0, 6.0, 7.0, 8.0), 0.333333), BoxRecord((1.0, 2.0, 3.0, 4.0), 0.25, "7")),
    )


def test_equal_runs_and_small_differences_are_no_change() -> None:
    nudged = replace(MUG, box=(10.2, 10.0, 50.1, 60.0), score=0.89, id="9")
    assert (
        compare([frame(0, goal(MUG, CUP))], [frame(0, goal(CUP, nudged, present=0.94))], Tolerances()) == []
    )


@pytest.mark.parametrize(
    ("found", "kinds", "sentence"),
    [
        (goal(CUP), ["missing box"], "[10.0 10.0 50.0 60.0] (0.900) is missing"),
        (
            goal(MUG, CUP, replace(CUP, box=(300.0, 0.0, 310.0, 20.0))),
            ["new box"],
            "[300.0 0.0 310.0 20.0] (0.800) is new",
        ),
        (goal(MUG, replace(CUP, box=(110.0, 10.0, 160.0, 60.0))), ["moved box"], "IoU 0.667"),
        (goal(replace(MUG, score=0.8), CUP), ["score"], "is 0.800"),
        (goal(MUG, CUP, present=0.6), ["presence"], "was present (0.950) and is present (0.600)"),
        (
            goal(present=0.2),
            ["presence", "missing box", "missing box"],
            "was present (0.950) and is absent (0.200)",
        ),
    ],
)
def test_each_kind_of_change(found: GoalRecord, kinds: list[str], sentence: str) -> None:
    changes = compare([frame(4, goal(MUG, CUP))], [frame(4, found)], Tolerances())
    assert [change.kind for change in changes] == kinds
    assert (changes[0].number, changes[0].goal) == (4, "mugs")
    assert sentence in changes[0].sentence


def test_ids_count_only_where_asked() -> None:
    wanted, found = [frame(0, goal(MUG))], [frame(0, goal(replace(MUG, id="5")))]
    assert compare(wanted, found, Tolerances()) == []
    assert [change.sentence for change in compare(wanted, found, Tolerances(ids=True))] == [
        "the id of [10.0 10.0 50.0 60.0] (0.900) was '1' and is '5'"
    ]


def test_boxes_that_move_in_space() -> None:
    here = replace(MUG, place=PlaceRecord((0.1, 0.2, 1.0), (0.0, 0.0, 0.0, 1.0), (0.1, 0.1, 0.2)))
    near, far = (replace(here, place=replace(here.place, centre=(0.1, 0.2, z))) for z in (1.009, 1.02))  # type: ignore[type-var]
    assert compare([frame(0, goal(here))], [frame(0, goal(near))], Tolerances()) == []
    sentences = [
        compare([frame(0, goal(here))], [frame(0, goal(box))], Tolerances())[0].sentence for box in (far, MUG)
    ]
    assert sentences == [
        "[10.0 10.0 50.0 60.0] (0.900) moved by 20.0 mm in space",
        "[10.0 10.0 50.0 60.0] (0.900) has a 3D position in one run only",
    ]


def test_frames_that_come_and_go() -> None:
    changed = replace(frame(2, goal(MUG)), refused="truncated")
    changes = compare(
        [frame(0, goal(MUG)), frame(2, goal(MUG))], [frame(1, goal(MUG)), changed], Tolerances()
    )
    assert [(change.number, change.kind) for change in changes] == [(0, "frame"), (1, "frame"), (2, "frame")]
    assert [change.sentence for change in changes[:2]] == ["the frame is missing", "the frame is new"]


def test_tolerances_are_checked() -> None:
    with pytest.raises(ValueError, match=r"The tolerance iou is 1.5; it must be between 0 and 1."):
        Tolerances(iou=1.5)


def test_what_only_the_whole_run_shows() -> None:
    """Every frame is within its tolerance, and together they have drifted."""
    drifted = replace(MUG, box=(10.0, 10.0, 50.5, 60.0), score=0.885)
    wanted, found = ([frame(number, goal(box)) for number in range(4)] for box in (MUG, drifted))
    changes = compare(wanted, found, Tolerances())
    assert [(change.number, change.goal, change.kind) for change in changes] == [
        (WHOLE_RUN, "mugs", "drift")
    ] * 2
    assert [change.line for change in changes] == [
        "all frames: the mean IoU with the former boxes is 0.9877",
        "all frames: the scores differ by 0.0150 in the mean",
    ]
    assert compare(wanted, found, Tolerances(goal_iou=0.98, goal_score=0.02)) == []


def test_a_share_of_the_frames_may_differ() -> None:
    wanted = [frame(number, goal(MUG, CUP), goal(CUP, text="cups")) for number in range(10)]
    found = [replace(wanted[0], goals=(goal(MUG), wanted[0].goals[1])), *wanted[1:]]
    assert [change.kind for change in compare(wanted, found, Tolerances())] == ["missing box"]
    assert compare(wanted, found, Tolerances(frames=0.1)) == []
    assert [change.kind for change in compare(wanted, found, Tolerances(frames=0.09))] == ["missing box"]


def test_how_far_everything_moved() -> None:
    """By hand: the mug moves by 8 of its 40 pixels (IoU 32/48), the cup stays and loses 0.1; one frame loses
    the cup."""
    moved, doubted = replace(MUG, box=(18.0, 10.0, 58.0, 60.0), id="7"), replace(CUP, score=0.7)
    wanted = [frame(0, goal(MUG, CUP)), frame(1, goal(CUP)), frame(2, goal())]
    found = [frame(0, goal(moved, doubted, present=0.9)), frame(1, goal()), frame(2, goal())]
    (row,) = movements(wanted, found)
    assert (row.goal, row.boxes, row.new, row.missing, row.flips, row.ids) == ("mugs", 2, 0, 1, 1, 1)
    measured = (row.overlap, row.least_overlap, row.score, row.most_score, row.presence)
    assert measured == pytest.approx(((2 / 3 + 1) / 2, 2 / 3, 0.05, 0.1, 0.05))
